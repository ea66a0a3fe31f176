"""What the terminal, the page and the JSON all show, computed once: accounts, phases, ranks, the end."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from horovod_byz.ledger.conclusion import Conclusion, conclude
from horovod_byz.ledger.history import History
from horovod_byz.ledger.parsed import Entry, RankTimes, Window

__all__ = ["Overview", "WorkerRow", "overview"]


@dataclass(frozen=True)
class WorkerRow:
    """A worker of the last binding; what was not measured is None."""

    worker: int
    rank: int | None
    host: str
    device: str
    group: int | None
    weight: float | None
    distance: float | None
    proofs: dict[str, int]
    suspicions: dict[str, int]
    last: int | None

    @property
    def silent(self) -> bool:
        """Whether nothing is entered against it."""
        return not self.proofs and not self.suspicions


@dataclass(frozen=True)
class Overview:
    """A run, its conclusion, and the tables that reports show.

    Attributes:
        workers: those of the last binding, and any other that the files name.
        phases: mean seconds of each part of a step, over the run.
        ranks: mean seconds of each rank, over the last windows of the last binding.
    """

    history: History
    conclusion: Conclusion
    workers: tuple[WorkerRow, ...]
    phases: dict[str, float]
    ranks: tuple[RankTimes, ...]

    @property
    def path(self) -> Path:
        """The folder or file."""
        return self.history.path

    @property
    def state(self) -> str:
        """ "ended", "failed", or "open": the run goes on, or its process was killed."""
        if not self.history.ends:
            return "open"
        return "failed" if any(end.reason for end in self.history.ends) else "ended"

    @property
    def ending(self) -> str:
        """How the run ended, in a sentence."""
        ends = self.history.ends
        if not ends:
            return "no end is recorded: the run goes on, or it was killed"
        failed = next((end for end in ends if end.reason), None)
        if failed is None:
            return f"the run ended normally at step {ends[0].step}"
        return f"rank {failed.source} ended by an error at step {failed.step}: {failed.reason}"


def overview(history: History) -> Overview:
    """Draws a run's conclusion, and computes the tables."""
    last = [window for window in history.windows if window.binding == len(history.bindings) - 1]
    return Overview(
        history, conclude(history), _workers(history), _phases(history.windows), _ranks(last[-20:])
    )


def _workers(history: History) -> tuple[WorkerRow, ...]:
    binding = history.binding
    count = binding.workers or 0
    # A file may state any number: the rows are those of which something is known.
    known = set(history.totals) | {worker for place in binding.places for worker in place.workers}
    known |= {each.worker for window in history.windows for each in window.workers}
    known |= {entry.evidence.worker for entry in history.entries if entry.evidence.worker is not None}
    named: dict[int, list[Entry]] = defaultdict(list)
    for entry in history.entries:
        if entry.evidence.worker is not None and entry.binding == len(history.bindings) - 1:
            named[entry.evidence.worker].append(entry)
    shown = sorted(worker for worker in known if not count or worker < count or worker in named)
    return tuple(_row(history, worker, named[worker]) for worker in shown)


def _row(history: History, worker: int, entries: list[Entry]) -> WorkerRow:
    binding, totals = history.binding, history.totals.get(worker)
    place = binding.place_of(worker)
    counts: dict[str, dict[str, int]] = {"proof": {}, "suspicion": {}, "notice": {}}
    for entry in entries:
        inside = counts[entry.evidence.kind]
        inside[entry.evidence.reason] = inside.get(entry.evidence.reason, 0) + 1
    group = next((k for k, group in enumerate(binding.groups or ()) if worker in group), None)
    steps = [entry.evidence.step for entry in entries if entry.evidence.kind != "notice"]
    if totals is not None and totals.last is not None and totals.proofs and not steps:
        steps = [totals.last]
    return WorkerRow(
        worker,
        place.rank if place else None,
        place.host if place and place.host != "?" else "",
        place.device if place else "",
        group if group is not None else totals.group if totals else None,
        totals.weight if totals else None,
        totals.distance if totals else None,
        _most(counts["proof"], totals.proofs if totals else {}),
        counts["suspicion"],
        max(steps, default=None),
    )


def _most(counts: dict[str, int], totals: dict[str, int]) -> dict[str, int]:
    """The counts of the evidence; of the account where it knows of more steps for the same reason."""
    reasons = [*counts, *(reason for reason in totals if reason not in counts)]
    return {reason: most for reason in reasons if (most := max(counts.get(reason, 0), totals.get(reason, 0)))}


def _phases(windows: tuple[Window, ...]) -> dict[str, float]:
    sums: dict[str, list[float]] = {}
    for window in windows:
        steps = window.last - window.first + 1
        for phase, seconds in window.phases.items():
            total = sums.setdefault(phase, [0.0, 0.0])
            total[0] += seconds * steps
            total[1] += steps
    return {phase: seconds / steps for phase, (seconds, steps) in sums.items() if steps > 0}


def _ranks(windows: list[Window]) -> tuple[RankTimes, ...]:
    seen: dict[int, list[RankTimes]] = defaultdict(list)
    for window in windows:
        for times in window.ranks:
            seen[times.rank].append(times)
    return tuple(
        RankTimes(rank, _mean([t.wait for t in times]), _mean([t.compute for t in times]))
        for rank, times in sorted(seen.items())
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
