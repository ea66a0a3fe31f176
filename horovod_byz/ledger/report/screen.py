"""The report on a terminal: the conclusion in the first line, then at most a screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from horovod_byz.ledger.report.overview import Overview, WorkerRow
from horovod_byz.ledger.wording import device

__all__ = ["NOT_MEASURED", "amounts", "number", "print_on", "screen"]

NOT_MEASURED = "not measured"
_MOST = 10  # lines of the table of workers; the culprits are among them
_COLOURS = {"culprit": "bold red", "warning": "bold yellow", "suspect": "bold yellow", "error": "bold yellow"}


def screen(shown: Overview) -> Iterator[RenderableType]:
    """What to print, in order. Names are text, never markup."""
    conclusion = shown.conclusion
    yield Text(conclusion.line, _COLOURS.get(conclusion.verdict, "bold green"))
    for group in (conclusion.culprits, conclusion.suspects):
        for named in group[:_MOST]:
            if named.sentence != conclusion.line:
                yield Text(f"  {named.sentence}")
    for warning in conclusion.warnings[:_MOST]:
        if warning.text not in conclusion.line:
            yield Text(f"  warning: {warning.text}")
    yield Text(_facts(shown), "dim")
    if shown.workers:
        yield _workers(shown)
    if shown.phases:
        yield Text(f"seconds a step: {_seconds(shown.phases)}{_slowest(shown)}")
    for note in shown.history.notes[:3]:
        yield Text(note, "dim")


def print_on(console: Console, lines: Iterable[RenderableType]) -> None:
    """Prints them; a text is a single line, however long, as programs read the first one."""
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, Text), highlight=False)


def _facts(shown: Overview) -> str:
    binding, steps = shown.history.binding, shown.history.steps
    hosts = len(shown.conclusion.hosts)
    known = [
        f"{binding.workers} workers" if binding.workers else "",
        f"{hosts} host{'s' * (hosts != 1)}" if hosts else "",
        f"{steps} steps",
        f"rule {binding.rule}" if binding.rule else "",
        f"collected {binding.collect}" if binding.collect else "",
        f"started {binding.started}" if binding.started else "",
        _ending(shown),
    ]
    return "; ".join(text for text in known if text)


def _ending(shown: Overview) -> str:
    """How the run ended, without a reason that stands in the lines above already: it may be long."""
    conclusion = shown.conclusion
    said = [
        conclusion.line,
        *(named.sentence for named in (*conclusion.culprits, *conclusion.suspects)[:_MOST]),
    ]
    reason = next((end.reason for end in shown.history.ends if end.reason), "")
    known = any(reason in text for text in said)
    return shown.ending.removesuffix(f": {reason}") if known else shown.ending


def _workers(shown: Overview) -> Table:
    """The workers with something entered first; the rest in a line of the title where there are many."""
    rows = sorted(shown.workers, key=lambda row: (not row.proofs, not row.suspicions, row.worker))
    rest = len(rows) - _MOST
    kept = rows if rest <= 0 else rows[:_MOST]
    quiet = all(row.silent for row in rows[_MOST:])
    title = f"workers; {rest} more{' with nothing against them' if quiet else ''}" if rest > 0 else "workers"
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False)
    for heading in ("worker", "rank", "host", "device", "group", "weight", "distance"):
        table.add_column(heading, justify="left" if heading in ("host", "device") else "right")
    table.add_column("proof")
    table.add_column("suspicion")
    table.add_column("last step", justify="right")
    for row in kept:
        table.add_row(*(Text(cell) for cell in _cells(row)), style="red" if row.proofs else "")
    return table


def _cells(row: WorkerRow) -> list[str]:
    return [
        str(row.worker),
        "-" if row.rank is None else str(row.rank),
        row.host or "-",
        device(row.device) or "-",
        "-" if row.group is None else str(row.group),
        NOT_MEASURED if row.weight is None else number(row.weight),
        number(row.distance),
        amounts(row.proofs),
        amounts(row.suspicions),
        "-" if row.last is None else str(row.last),
    ]


def amounts(counts: dict[str, int]) -> str:
    """Counts by reason: "outvoted 3"; "-" where there are none."""
    return ", ".join(f"{reason} {count}" for reason, count in counts.items()) or "-"


def number(value: float | None) -> str:
    """A number of four digits; "-" where nothing was measured."""
    return "-" if value is None else f"{value:.4g}"


def _seconds(phases: dict[str, float]) -> str:
    return ", ".join(f"{phase} {seconds:.4g}" for phase, seconds in phases.items())


def _slowest(shown: Overview) -> str:
    """The rank that computes longest, beside the median."""
    times = sorted((t.compute, t.rank) for t in shown.ranks if t.compute is not None)
    if not times:
        return ""
    (most, rank), (median, _) = times[-1], times[len(times) // 2]
    if most < 1.2 * median:
        return ""
    return f"; rank {rank} computes longest, {most:.4g} (median {median:.4g})"
