"""The page of `make chaos`: a pure function of chaos.json."""

from __future__ import annotations

from typing import Any

HEAD = """# Chaos

Real processes under horovodrun, with faults injected on purpose (`hb.Faults`): who is named, what is lost,
and what is left behind. Made by `make chaos`; do not edit.

{green} of {all} scenarios are green: the run ends as it must, within its time-out; every culprit is named,
and nobody else; the ranks that go on hold equal and finite parameters, under a vote bit for bit those of the
run without the fault; no process and no file is left behind; and the first line of `horovod-byz report`
names the culprit and nobody else. It stands below for each scenario. {seconds} s on {cores} cores, {date},
horovod_byz {horovod_byz}, Horovod {horovod}, torch {torch}.

Columns: *named*: the accused rank and the evidence ("launcher": the launcher ended all ranks and named it);
*step*: the first step with evidence, or at which the run ended; *lost*: steps not taken, or taken since the
fault and to be repeated; *s*: seconds of the slowest rank, without the start of the processes; *differ*: the
ranks whose parameters differ from most when the run ends.
"""

COLUMNS = (
    "",
    "launcher",
    "ranks",
    "collect",
    "rule",
    "fault",
    "ends",
    "named",
    "step",
    "lost",
    "s",
    "differ",
)


def text(results: dict[str, Any]) -> str:
    """The page."""
    rows = results["scenarios"]
    green = sum(not row["wrong"] for row in rows)
    lines = [HEAD.format(**{**results, "green": green, "all": len(rows)})]
    lines += [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *(_line(_cells(row)) for row in rows)]
    red = [row for row in rows if row["wrong"]]
    if red:
        lines += ["", "## Red", "", *(f"* {row['scenario']}: {'; '.join(row['wrong'])}" for row in red)]
    lines += ["", "## The first line of the report", ""]
    lines += [f"* `{row['scenario']}`: {row['report']}" for row in rows]
    return "\n".join([*lines, ""])


def _cells(row: dict[str, Any]) -> list[str]:
    named = ", ".join(f"rank {rank}: {why}" for rank, why in row["named"].items()) or "nobody"
    cells = [
        row["backend"],
        row["ranks"],
        row["collect"],
        row["rule"],
        f"`{row['fault']}`",
        row["ends"],
        named,
    ]
    cells += [row["first_step"], row["steps_lost"], row["seconds"], row["differing_ranks"]]
    return ["RED" if row["wrong"] else "ok", *("-" if cell is None else str(cell) for cell in cells)]


def _line(cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"
