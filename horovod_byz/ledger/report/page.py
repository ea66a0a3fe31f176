"""The report as a page: a single file without scripts, which loads nothing from a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from horovod_byz.common.extras import require
from horovod_byz.ledger import wording
from horovod_byz.ledger.conclusion import rate_in_words
from horovod_byz.ledger.culprits import charges
from horovod_byz.ledger.parsed import Entry
from horovod_byz.ledger.report.heat import heat_map
from horovod_byz.ledger.report.overview import Overview
from horovod_byz.ledger.report.screen import NOT_MEASURED, amounts, number
from horovod_byz.ledger.sifted import sift

__all__ = ["render", "steps_in_words"]

_MOST = 200  # rows of a table
_HEADLINES = {
    "culprit": "Culprit named",
    "warning": "More workers than the rule tolerates may be wrong",
    "suspect": "Suspected, not proven",
    "error": "Ended by an error, nobody named",
    "clean": "Nobody is proven or suspected wrong",
}


@dataclass(frozen=True)
class Line:
    """A row of a table of evidence: all steps of one worker or rank for one reason."""

    who: str
    reason: str
    count: int
    steps: str
    detail: str
    meaning: str


def render(shown: Overview, training: dict[str, Any] | None = None) -> str:
    """The page as HTML text.

    Args:
        shown: the run.
        training: evaluations and results of a run of `horovod-byz train`; see `training.report`.

    Raises:
        MissingExtraError: if jinja2 is not installed.
    """
    require("report", "jinja2")
    import jinja2

    # Everything that a run's files say is data: names from other ranks are escaped.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "amounts": amounts}
    text = (resources.files(__package__) / "page.html").read_text(encoding="utf-8")
    return environment.from_string(text).render(**_values(shown, training))


def _values(shown: Overview, training: dict[str, Any] | None) -> dict[str, Any]:
    sifted = sift(shown.history)
    written = shown.history.written
    slow = {entry.evidence.rank for entry in sifted.notices if entry.evidence.reason == "slow"}
    return {
        "shown": shown,
        "conclusion": shown.conclusion,
        "binding": shown.history.binding,
        "headline": _HEADLINES[shown.conclusion.verdict],
        "advice": _advice(shown),
        "heat": heat_map(shown),
        "workers": {row.worker: row for row in shown.workers},
        "proofs": [*_lines(shown, sifted.proofs), *_counted(shown)],
        "suspicions": _lines(shown, sifted.suspicions),
        "notices": _lines(shown, sifted.notices),
        "dismissed": len(sifted.dismissed),
        "assumes": wording.ASSUMES.get(shown.history.binding.test, ""),
        "not_measured": NOT_MEASURED,
        "longest_phase": max(shown.phases.values(), default=0.0),
        "longest": max(
            [t.compute or 0.0 for t in shown.ranks] + [t.wait or 0.0 for t in shown.ranks] + [0.0]
        ),
        "slow": slow,
        "training": training,
        "evaluations": _some(training["evaluations"]) if training else [],
        "most": _MOST,
        "started": _minute(shown.history.binding.started),
        "rate": rate_in_words(shown.history.binding),
        "written": datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M UTC") if written else "",
    }


def _minute(started: str) -> str:
    """A time as people write it; as it stands in the file where it is none."""
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M %Z")
    except ValueError:
        return started


def _advice(shown: Overview) -> list[tuple[str, str]]:
    """What to do, each with the reason, most urgent first."""
    conclusion = shown.conclusion
    todo = [(c.suggestion, f"for {c.charge.name}") for c in (*conclusion.culprits, *conclusion.suspects)]
    if any(warning.serious for warning in conclusion.warnings):
        todo.insert(
            0,
            ("do not trust the model; raise f, or the redundancy", "since more workers than f may be wrong"),
        )
    if any(warning.reason == "overflow" for warning in conclusion.warnings):
        todo.append(("look at the loss, and lower its scale", "since over half of the workers sent NaN"))
    if shown.state == "open":
        todo.append(("look whether the run goes on", "since no end is recorded"))
    return list(dict.fromkeys(todo))[:20]


def _lines(shown: Overview, entries: Iterable[Entry]) -> list[Line]:
    """One line for each worker or rank and reason, those with most steps first."""
    grouped: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        fact = entry.evidence
        known = fact.worker is not None or fact.rank is not None
        who = charges(shown.history, [entry])[0].name if known else "the run"
        grouped[who, fact.reason].append(entry)
    lines = []
    for (who, reason), inside in grouped.items():
        steps = sorted({entry.evidence.step for entry in inside})
        details = dict.fromkeys(entry.evidence.detail for entry in inside if entry.evidence.detail)
        text = "; ".join(list(details)[:3]) + ("; ..." if len(details) > 3 else "")
        lines.append(Line(who, reason, len(steps), steps_in_words(steps), text, wording.meaning(reason)))
    return sorted(lines, key=lambda line: (-line.count, line.who))


def _counted(shown: Overview) -> list[Line]:
    """The proofs of which only counts are known, as in a folder of `horovod-byz train`."""
    return [
        Line(c.charge.name, reason, count, f"last {c.charge.last}", "", wording.meaning(reason))
        for c in shown.conclusion.culprits
        if not c.charge.steps
        for reason, count in c.charge.counts.items()
    ]


def _some(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most thirteen of the evaluations, the last among them."""
    every = max(1, -(-len(records) // 12))
    return [*records[:-1:every], *records[-1:]]


def steps_in_words(steps: Iterable[int], most: int = 12) -> str:
    """Ascending steps with ranges, cut in the middle: "3, 10 to 29, ..., 994".

    Examples:
        >>> steps_in_words([3, 10, 11, 12, 20]), steps_in_words(range(0, 1000, 7), most=3)
        ('3, 10 to 12, 20', '0, 7, ..., 994')
    """
    ranges: list[list[int]] = []
    for step in steps:
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    words = [str(a) if a == b else f"{a} to {b}" for a, b in ranges]
    return ", ".join(words if len(words) <= most else [*words[: most - 1], "...", words[-1]])
