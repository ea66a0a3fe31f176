"""Which evidence of a run accuses somebody: proof that a step's other evidence explains away does not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from horovod_byz.ledger.culprits import Charge
from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.history import History
from horovod_byz.ledger.parsed import End, Entry, Totals

__all__ = ["Sifted", "from_ends", "sift", "with_totals"]


@dataclass(frozen=True)
class Sifted:
    """The entries of a run by what they are worth.

    Attributes:
        proofs: name a worker or rank.
        suspicions: a test that a worker failed.
        notices: accuse nobody; those among them that a step without a majority adds.
        dismissed: entered as proof, and none: over half of the workers sent NaN, nobody in a group won, or a
            rank was late for those that ended after it.
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
        if (entry.evidence.reason == "non-finite" and _at(entry) in overflows)
        or id(entry) in undecided
        or _left_after_others(history, entry)
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


def _rank(history: History, entry: Entry) -> int | None:
    place = history.bound(entry.binding).place_of(entry.evidence.worker)
    return entry.evidence.rank if entry.evidence.rank is not None or place is None else place.rank


def _left_after_others(history: History, entry: Entry) -> bool:
    """Whether it calls a rank late at the run's end that the errors of most ranks do not name.

    A rank that ends with an error makes those late that still wait for it.
    """
    windows = [window.last for window in history.windows if window.binding == entry.binding]
    at_end = entry.binding == len(history.bindings) - 1 and entry.evidence.step >= max(windows, default=0)
    ranks = _named_by_errors(history)
    return bool(entry.evidence.reason == "late" and at_end and ranks and _rank(history, entry) not in ranks)


def _errors(history: History) -> list[End]:
    """The ends by an error that names ranks, in the order of time."""
    named = (end for end in history.ends if end.reason and end.ranks)
    return sorted(named, key=lambda end: float("inf") if end.time is None else end.time)


def _named_by_errors(history: History) -> list[int]:
    """The ranks that more than half of the errors at the run's end name, else those that the first names."""
    errors = _errors(history)
    votes = Counter(rank for end in errors for rank in set(end.ranks))
    most = [rank for rank, count in votes.items() if count > len(errors) / 2]
    return most or (list(errors[0].ranks) if errors else [])


def from_ends(history: History, proofs: Iterable[Entry]) -> list[Entry]:
    """The ranks that the errors at the run's end name, as evidence; none where the ledger has it already."""
    ranks, last = _named_by_errors(history), len(history.bindings) - 1
    entered = {_rank(history, entry) for entry in proofs if entry.binding == last}
    if not ranks or entered & set(ranks):
        return []
    error = _errors(history)[0]
    return [Entry(Evidence(error.step, "proof", "named", None, rank, error.reason), last) for rank in ranks]


def with_totals(charged: list[Charge], history: History, sifted: Sifted) -> list[Charge]:
    """The same, with the counts of the workers' accounts, where a file holds only some of the evidence."""
    if len({binding.places for binding in history.bindings}) > 1:
        return charged  # a worker's number may have meant several machines
    dismissed = {(entry.evidence.worker, entry.evidence.reason) for entry in sifted.dismissed}
    charged = list(charged)
    for worker, account in history.totals.items():
        proofs = _proven(history, account)
        counts = {reason: n for reason, n in proofs.items() if n > 0 and (worker, reason) not in dismissed}
        of_worker = [k for k, c in enumerate(charged) if c.level == "worker" and c.workers == (worker,)]
        for k in of_worker:
            charged[k] = _raised(charged[k], counts, account)
        if counts and not of_worker and not any(worker in c.workers for c in charged):
            charged.append(_of_account(history, account, counts))
    return charged


def _raised(charge: Charge, counts: dict[str, int], account: Totals) -> Charge:
    most = {reason: max(counts.get(reason, 0), n) for reason, n in charge.counts.items()}
    if most == charge.counts:
        return charge
    return replace(
        charge, counts=most, last=max(step for step in (charge.last, account.last) if step is not None)
    )


def _proven(history: History, account: Totals) -> dict[str, int]:
    """A worker's proofs by its account; without votes that may have been lost by the whole group."""
    proofs = dict(account.proofs)
    known = any(entry.evidence.reason == "outvoted" for entry in history.entries)
    group = next((group for group in history.binding.groups or () if account.worker in group), ())
    if "outvoted" in proofs and not known:
        others = [history.totals[member].proofs for member in group if member in history.totals]
        proofs["outvoted"] -= min((each.get("outvoted", 0) for each in others), default=0)
    return proofs


def _of_account(history: History, account: Totals, counts: dict[str, int]) -> Charge:
    place = history.binding.place_of(account.worker)
    host = place.host if place and place.host != "?" else ""
    ranks = (place.rank,) if place else ()
    steps = () if account.first is None else (account.first,)
    return Charge("worker", (account.worker,), ranks, place, host, counts, steps, account.last)
