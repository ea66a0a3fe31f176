"""A run as its ledger's files tell it; see `records` for their format. Reads, and concludes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from horovod_byz.ledger import parsed
from horovod_byz.ledger.lines import Fields, LedgerFileError, read_lines
from horovod_byz.ledger.parsed import Action, Binding, End, Entry, Totals, Window
from horovod_byz.ledger.records import NAME

__all__ = ["History", "files", "read"]

# Entered for an error that every rank raises, under the step at which the rank itself is.
_OF_ERRORS = frozenset({"header", "late", "state", "two stories"})


@dataclass(frozen=True)
class History:
    """All that the files of one run say, in the order in which it was written.

    Attributes:
        path: the folder or file.
        bindings: who took part; a resumed or elastic run has several.
        entries: the evidence; one step counts once for the same reason and worker or rank.
        totals: the workers' accounts, by worker.
        steps: how many steps the accounts cover, or the last step that is known and 1.
        ends: the ends that belong to the last binding: an earlier one was followed by a new start.
        notes: what was skipped while reading.
        written: when a file was last written to, seconds since 1970.
    """

    path: Path
    bindings: tuple[Binding, ...] = ()
    entries: tuple[Entry, ...] = ()
    windows: tuple[Window, ...] = ()
    totals: dict[int, Totals] = field(default_factory=dict)
    steps: int = 0
    actions: tuple[Action, ...] = ()
    ends: tuple[End, ...] = ()
    notes: tuple[str, ...] = ()
    written: float | None = None

    @property
    def binding(self) -> Binding:
        """The last binding; an empty one where none was written."""
        return self.bindings[-1] if self.bindings else Binding()

    @property
    def last_step(self) -> int | None:
        """The last step that anything is known of."""
        steps = [window.last for window in self.windows] + [entry.evidence.step for entry in self.entries]
        steps += [end.step for end in self.ends] + [self.steps - 1] * (self.steps > 0)
        return max(steps, default=None)

    def bound(self, number: int) -> Binding:
        """A binding by its number; an empty one for evidence that was entered before any."""
        return self.bindings[number] if 0 <= number < len(self.bindings) else Binding()


def files(path: Path) -> list[Path]:
    """The files of the ledger at a folder or file, rank 0's first; none where there are none."""
    if path.is_file():
        return [path, *_of_ranks(path.parent)] if path.name == NAME else [path]
    main = path / NAME
    return [main] * main.is_file() + (_of_ranks(path) if path.is_dir() else [])


def read(path: Path) -> History:
    """Reads the ledger at a folder, or in one file.

    Raises:
        LedgerFileError: if there is none, or a file is no ledger's; the message names file and line.
    """
    paths = files(path)
    if not paths:
        what = "holds no" if path.is_dir() else "does not exist: name a folder that holds a"
        raise LedgerFileError(
            f"{path} {what} {NAME}; DistributedOptimizer(..., ledger={str(path)!r}) writes one"
        )
    reader = _Reader()
    for file in paths:
        reader.take(file)
    return reader.history(path)


class _Reader:
    """Collects the records of several files, rank 0's first."""

    def __init__(self) -> None:
        self._forget()
        self.starts: list[
            tuple[float | None, int]
        ] = []  # of each "run" record, and the number of its binding
        self.notes: list[str] = []
        self.written = 0.0

    def _forget(self) -> None:
        self.bindings: list[Binding] = []
        self.entries: dict[tuple[object, ...], Entry] = {}
        self.windows: list[Window] = []
        self.totals: dict[int, Totals] = {}
        self.steps = 0
        self.actions: list[Action] = []
        self.ends: list[End] = []

    def take(self, path: Path) -> None:
        """Reads one file.

        A rank's own file repeats the "run" record and the last evidence, each time that the rank ended by an
        error; which binding that was, the time at which it began says.
        """
        rank = _rank_of(path)
        main = rank is None or not self.bindings
        records, notes = read_lines(path)
        self.notes += notes
        self.written = max(self.written, path.stat().st_mtime)
        binding = len(self.bindings) - 1
        for fields in records:
            if fields.record["record"] == "run":
                binding = self._run(fields, path) if main else self._nearest(fields)
            elif main or binding >= 0:
                self._other(fields, binding, rank)

    def _run(self, fields: Fields, path: Path) -> int:
        if self.bindings and fields.record.get("resumed") is False:
            self._forget()
            self.starts = [(start, -1) for start, _ in self.starts]
            self.notes.append(f"{path.name} holds an earlier run, which this report leaves out")
        self.bindings.append(parsed.read_binding(fields))
        self.ends.clear()  # the run went on after them
        self.starts.append((_seconds(self.bindings[-1].started), len(self.bindings) - 1))
        return len(self.bindings) - 1

    def _nearest(self, fields: Fields) -> int:
        """The binding of rank 0's file that began at about the same time; -1 for one of an earlier run."""
        started = _seconds(fields.text("started"))
        known = [(abs(start - started), number) for start, number in self.starts if start and started]
        return min(known)[1] if known else len(self.bindings) - 1

    def _other(self, fields: Fields, number: int, rank: int | None) -> None:
        kind = fields.record["record"]
        if kind == "evidence":
            entry = parsed.read_entry(fields, number)
            fact = entry.evidence
            key = (number, fact.step, fact.kind, fact.reason, fact.worker, fact.rank)
            if rank is None or fact.reason not in _OF_ERRORS or not self._has(entry):
                self.entries.setdefault(key, entry)
        elif kind == "window":
            self.windows.append(parsed.read_window(fields, number))
        elif kind == "totals":
            report = fields.table("report")
            if (steps := report.whole("steps") or 0) >= self.steps:
                self.steps = steps
                self.totals = {totals.worker: totals for totals in parsed.read_totals(report)}
        elif kind == "action":
            self.actions.append(parsed.read_action(fields, number))
        elif kind == "end":
            self._end(parsed.read_end(fields, rank or 0, number))

    def _has(self, entry: Entry) -> bool:
        """Whether another rank, which may count its steps differently, has entered the same error."""
        fact = entry.evidence
        whom = "worker" if fact.rank is None else "rank"
        return any(
            (known.binding, known.evidence.reason) == (entry.binding, fact.reason)
            and getattr(known.evidence, whom) == getattr(fact, whom)
            for known in self.entries.values()
        )

    def _end(self, end: End) -> None:
        """Keeps the last end of each rank, unless the run went on after it."""
        later = [window.last for window in self.windows if window.binding == end.binding]
        if end.binding == len(self.bindings) - 1 and max(later, default=-1) <= end.step:
            self.ends = [*(before for before in self.ends if before.source != end.source), end]

    def history(self, path: Path) -> History:
        return History(
            path,
            tuple(self.bindings),
            tuple(self.entries.values()),
            tuple(self.windows),
            self.totals,
            max([self.steps, *(window.last + 1 for window in self.windows)]),
            tuple(self.actions),
            tuple(self.ends),
            tuple(self.notes),
            self.written,
        )


def _of_ranks(folder: Path) -> list[Path]:
    named = [(_rank_of(path), path) for path in folder.glob("ledger.rank*.jsonl")]
    return [path for _, path in sorted((rank, path) for rank, path in named if rank is not None)]


def _rank_of(path: Path) -> int | None:
    """The rank whose own file it is, or None."""
    number = path.stem.partition("ledger.rank")[2]
    return int(number) if number.isdecimal() else None


def _seconds(started: str) -> float | None:
    try:
        at = datetime.fromisoformat(started)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return None
