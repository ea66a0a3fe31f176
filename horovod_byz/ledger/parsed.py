"""The records of a ledger's file as values: each class, and how it is read from its line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from horovod_byz.host.place import Place
from horovod_byz.ledger.evidence import PROOFS, Evidence, Kind
from horovod_byz.ledger.lines import Fields, LedgerFileError
from horovod_byz.ledger.records import FORMAT

_KINDS: dict[str, Kind] = {"proof": "proof", "suspicion": "suspicion", "notice": "notice"}


@dataclass(frozen=True)
class Binding:
    """A "run" record: who took part, from one binding of the ranks to the next."""

    started: str = ""
    version: str = ""
    workers: int | None = None
    rule: str = ""
    collect: str = ""
    groups: tuple[tuple[int, ...], ...] | None = None
    f: int | None = None
    alpha: float | None = None
    test: str = ""
    places: tuple[Place, ...] = ()

    def place(self, rank: int | None) -> Place | None:
        """Where a rank runs, where it is known."""
        return next((place for place in self.places if place.rank == rank), None)

    def place_of(self, worker: int | None) -> Place | None:
        """Where a worker runs, where it is known."""
        return next((place for place in self.places if worker in place.workers), None)


@dataclass(frozen=True)
class Entry:
    """An "evidence" record, with the number of the binding that it was entered under."""

    evidence: Evidence
    binding: int
    time: float | None = None


@dataclass(frozen=True)
class WorkerWindow:
    """A worker in a window of steps; what was not measured is None."""

    worker: int
    weight: float | None = None
    distance: float | None = None
    norm: float | None = None
    proofs: int = 0
    suspicion: float | None = None


@dataclass(frozen=True)
class RankTimes:
    """Mean seconds of a rank in a window of steps."""

    rank: int
    wait: float | None = None
    compute: float | None = None


@dataclass(frozen=True)
class Window:
    """A "window" record: means over the steps first to last."""

    first: int
    last: int
    binding: int
    workers: tuple[WorkerWindow, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)
    ranks: tuple[RankTimes, ...] = ()


@dataclass(frozen=True)
class Totals:
    """A worker's account over the whole run; means are None where nothing was measured.

    `proofs` counts the steps with proof, by reason; `first` and `last` are those of anything against it.
    """

    worker: int
    steps: int = 0
    weight: float | None = None
    distance: float | None = None
    proofs: dict[str, int] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class Action:
    """An "action" record: what a policy did."""

    step: int
    action: str
    binding: int
    worker: int | None = None
    rank: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class End:
    """An "end" record. `source` is the rank that wrote it; `reason` is empty for a normal end."""

    source: int
    step: int
    binding: int
    reason: str = ""
    ranks: tuple[int, ...] = ()
    time: float | None = None


def read_binding(fields: Fields) -> Binding:
    if (fields.whole("format") or 0) > FORMAT:
        raise LedgerFileError(
            f"{fields.where}: format {fields.whole('format')} is newer than {FORMAT}, which this version "
            "reads: upgrade horovod-byz"
        )
    test, texts = fields.text("test", 40), ("started", "version", "rule", "collect")
    return Binding(
        **{key: fields.text(key) for key in texts},
        workers=fields.whole("workers"),
        groups=fields.groups("groups"),
        f=fields.whole("f"),
        alpha=fields.number("alpha"),
        test=test,
        places=tuple(map(_place, fields.tables("places"))),
    )


def _place(fields: Fields) -> Place:
    return Place(
        _step(fields, "rank"),
        fields.wholes("workers"),
        fields.text("host", 64) or "?",
        fields.whole("local_rank") or 0,
        fields.text("device", 96),
    )


def read_entry(fields: Fields, binding: int) -> Entry:
    kind = fields.text("kind", 20)
    fact = Evidence(
        _step(fields),
        _KINDS.get(kind, "notice"),  # a kind of a later version accuses nobody
        fields.text("reason", 60),
        fields.whole("worker"),
        fields.whole("rank"),
        fields.text("detail"),
    )
    return Entry(fact, binding, fields.number("time"))


def read_window(fields: Fields, binding: int) -> Window:
    workers = tuple(
        WorkerWindow(
            _step(each, "worker"),
            each.number("weight"),
            each.number("distance"),
            each.number("norm"),
            each.whole("proofs") or 0,
            each.number("suspicion"),
        )
        for each in fields.tables("workers")
    )
    ranks = tuple(
        RankTimes(_step(each, "rank"), each.number("wait"), each.number("compute"))
        for each in fields.tables("ranks")
    )
    phases = fields.table("phases").numbers()
    return Window(_step(fields, "first"), _step(fields, "last"), binding, workers, phases, ranks)


def read_totals(report: Fields) -> Iterable[Totals]:
    """The accounts of a "totals" record's report."""
    for each in report.tables("workers"):
        yield Totals(
            _step(each, "worker"),
            each.whole("steps") or 0,
            each.number("mean_weight"),
            each.number("mean_distance"),
            _proofs(each),
            each.whole("first_suspect_step"),
            each.whole("last_suspect_step"),
            each.whole("group"),
        )


def _proofs(account: Fields) -> dict[str, int]:
    """The proofs by reason; an account of an earlier version has them among other reasons."""
    if account.record.get("proofs") is not None:
        return {reason: int(count) for reason, count in account.table("proofs").numbers().items()}
    reasons = {**account.table("reasons").numbers(), "late": account.whole("absent") or 0}
    return {reason: int(count) for reason, count in reasons.items() if reason in PROOFS and count}


def read_action(fields: Fields, binding: int) -> Action:
    worker, rank = fields.whole("worker"), fields.whole("rank")
    return Action(_step(fields), fields.text("action", 40), binding, worker, rank, fields.text("detail"))


def read_end(fields: Fields, rank: int, binding: int) -> End:
    step, named = fields.whole("step") or 0, fields.wholes("ranks")
    return End(rank, step, binding, fields.text("reason"), named, fields.number("time"))


def _step(fields: Fields, key: str = "step") -> int:
    value = fields.whole(key)
    if value is None or value < 0:
        raise LedgerFileError(f"{fields.where}: {key!r} must be a number from 0, got {value}")
    return value
