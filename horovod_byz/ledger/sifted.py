"""Which evidence of a run accuses somebody: proof that a step's other evidence explains away does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from horovod_byz.ledger.culprits import Charge
from horovod_byz.ledger.evidence import PROOFS, Evidence
from horovod_byz.ledger.history import History
from horovod_byz.ledger.parsed import Entry

__all__ = ["Sifted", "from_ends", "sift", "with_totals"]


@dataclass(frozen=True)
class Sifted:
    """The entries of a run by what they are worth.

    Attributes:
        proofs: name a worker or rank.
        suspicions: a test that a worker failed.
        notices: accuse nobody; those among them that a step without a majority adds.
        dismissed: entered as proof, and none: over half of the workers sent NaN, or nobody in a group won.
    """

    proofs: tuple[Entry, ...]
    suspicions: tuple[Entry, ...]
    notices: tuple[Entry, ...]
    dismissed: tuple[Entry, ...]


def sift(history: History) -> Sifted:
    """Separates the entries of a run."""
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in history.entries:
        by_kind[entry.evidence.kind].append(entry)
    overflows = {_at(entry) for entry in by_kind["notice"] if entry.evidence.reason == "overflow"}
    undecided, notices = _no_majority(history, by_kind["proof"])
    explained = [
        entry
        for entry in by_kind["proof"]
        if (entry.evidence.reason == "non-finite" and _at(entry) in overflows) or id(entry) in undecided
    ]
    gone = {id(entry) for entry in explained}
    known = {_at(entry) for entry in by_kind["notice"] if entry.evidence.reason == "no majority"}
    added = [entry for entry in notices if _at(entry) not in known]
    return Sifted(
        tuple(entry for entry in by_kind["proof"] if id(entry) not in gone),
        tuple(by_kind["suspicion"]),
        (*by_kind["notice"], *added),
        tuple(explained),
    )


def _no_majority(history: History, proofs: Iterable[Entry]) -> tuple[set[int], list[Entry]]:
    """Lost votes of steps in which all of a group lost, and a notice for each such step."""
    lost: dict[tuple[int, int], dict[int | None, Entry]] = defaultdict(dict)
    for entry in proofs:
        if entry.evidence.reason == "outvoted":
            lost[_at(entry)][entry.evidence.worker] = entry
    undecided, notices = set(), []
    for (number, step), losers in lost.items():
        for group in history.bound(number).groups or ():
            if len(group) > 1 and set(group) <= set(losers):
                undecided |= {id(losers[worker]) for worker in group}
                notices.append(Entry(Evidence(step, "notice", "no majority"), number))
    return undecided, notices


def _at(entry: Entry) -> tuple[int, int]:
    return entry.binding, entry.evidence.step


def from_ends(history: History, proofs: Iterable[Entry]) -> list[Entry]:
    """The ranks that the errors at the run's end name, as evidence; none where the ledger has it already.

    Ranks that end after others name those that left first. So a rank counts that more than half of the errors
    name, or, where there is none, the ranks that the first error names.
    """
    errors = sorted(
        (end for end in history.ends if end.reason and end.ranks),
        key=lambda end: float("inf") if end.time is None else end.time,
    )
    if not errors:
        return []
    votes = {rank: sum(rank in end.ranks for end in errors) for end in errors for rank in end.ranks}
    most = [rank for rank, count in votes.items() if count > len(errors) / 2]
    ranks = most or list(errors[0].ranks)
    binding = history.binding
    last = len(history.bindings) - 1
    entered = {entry.evidence.rank for entry in proofs if entry.binding == last}
    entered |= {
        place.rank for entry in proofs if (place := binding.place_of(entry.evidence.worker)) is not None
    }
    if entered & set(ranks):
        return []
    said = errors[0].reason
    return [Entry(Evidence(errors[0].step, "proof", "named", None, rank, said), last) for rank in ranks]


def with_totals(charged: list[Charge], history: History, sifted: Sifted) -> list[Charge]:
    """The same, with the counts of the workers' accounts where a file holds only some of the evidence."""
    if len({binding.places for binding in history.bindings}) > 1:
        return charged  # a worker's number may have meant several machines
    dismissed = {(entry.evidence.worker, entry.evidence.reason) for entry in sifted.dismissed}
    counted = {worker: _proven(history, worker) for worker in history.totals}
    charged = list(charged)
    for worker, reasons in counted.items():
        counts = {reason: n for reason, n in reasons.items() if n and (worker, reason) not in dismissed}
        number = next(
            (k for k, c in enumerate(charged) if c.level == "worker" and c.workers == (worker,)), None
        )
        if number is not None:
            charge = charged[number]
            most = {reason: max(counts.get(reason, 0), n) for reason, n in charge.counts.items()}
            last = history.totals[worker].last_suspect
            latest = max((step for step in (charge.last, last) if step is not None), default=None)
            more = any(most[reason] > n for reason, n in charge.counts.items())
            charged[number] = replace(charge, counts=most, last=latest if more else charge.last)
        elif counts and not any(worker in c.workers for c in charged):
            charged.append(_of_totals(history, worker, counts))
    return charged


def _proven(history: History, worker: int) -> dict[str, int]:
    """A worker's proofs by its account; votes that may have been lost by the whole group are left out."""
    reasons = {reason: n for reason, n in history.totals[worker].reasons.items() if reason in PROOFS}
    known = any(entry.evidence.reason == "outvoted" for entry in history.entries)
    group = next((group for group in history.binding.groups or () if worker in group), ())
    if "outvoted" in reasons and not known and group:
        others = [history.totals[member] for member in group if member in history.totals]
        reasons["outvoted"] -= min(account.reasons.get("outvoted", 0) for account in others)
    return reasons


def _of_totals(history: History, worker: int, counts: dict[str, int]) -> Charge:
    place = history.binding.place_of(worker)
    host = place.host if place and place.host != "?" else ""
    ranks = (place.rank,) if place else ()
    last = history.totals[worker].last_suspect
    return Charge("worker", (worker,), ranks, place, host, counts, (), last)
