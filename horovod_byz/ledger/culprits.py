"""Evidence put together by whom it names: workers, ranks all of whose workers are named, hosts likewise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from horovod_byz.host.place import Place
from horovod_byz.ledger import wording
from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.history import History
from horovod_byz.ledger.parsed import Binding, Entry

__all__ = ["Charge", "charges", "collapsed", "place_of"]

Level = Literal["worker", "rank", "host"]


@dataclass(frozen=True)
class Charge:
    """What is entered against one worker, rank or host.

    Attributes:
        level: which of them.
        workers: the workers; none for a rank that holds none, or whose workers are not known.
        ranks: the ranks, where they are known.
        place: where the worker or rank runs; None where that is not known, and for a host of several ranks.
        host: the host's name, or "".
        counts: how many steps, by reason.
        steps: the steps that are known.
        last: the last step.
        details: the details, without repetition, first ones first.
    """

    level: Level
    workers: tuple[int, ...]
    ranks: tuple[int, ...]
    place: Place | None
    host: str
    counts: dict[str, int]
    steps: tuple[int, ...]
    last: int | None
    details: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """What to act on, in a word: the host, or what is known instead."""
        at_rank = wording.listed(self.ranks, "rank")
        return self.host or (f"worker {self.workers[0]}" if self.level == "worker" else at_rank)

    @property
    def name(self) -> str:
        """Such as "worker 7 (rank 7, host b, GPU 2)"."""
        place = wording.where(self.place) if self.place else ""
        if self.level == "host":
            return f"host {self.host} ({wording.listed(self.ranks, 'rank')}, all of its ranks)"
        ranks = [text for text in [wording.listed(self.ranks, "rank")] if text]
        if self.level == "worker":
            known = [*ranks, *([place] * bool(place))]
            return f"worker {self.workers[0]}" + (f" ({', '.join(known)})" if known else "")
        known = [text for text in (place, wording.listed(self.workers, "worker")) if text]
        return "".join(ranks) + (f" ({', '.join(known)})" if known else "")


def place_of(binding: Binding, evidence: Evidence) -> Place | None:
    """Where the worker or rank that evidence names runs."""
    if evidence.rank is not None:
        return binding.place(evidence.rank)
    return binding.place_of(evidence.worker)


def charges(history: History, entries: Iterable[Entry]) -> list[Charge]:
    """One charge for each worker or rank that the entries name; those with the most steps first.

    After a new binding a device may hold another worker: it stays the same culprit, under its last number.
    """
    named: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        key = _key(history.bound(entry.binding), entry.evidence)
        named.setdefault(key, []).append(entry)
    return _sorted(_charge(history, group) for group in named.values())


def _key(binding: Binding, fact: Evidence) -> tuple[object, ...]:
    place = place_of(binding, fact)
    if place is None:
        return ("worker", fact.worker) if fact.worker is not None else ("rank", fact.rank)
    # What a rank does counts for its worker, if it has a single one.
    several = len(place.workers) > 1 and fact.worker in place.workers
    slot = place.workers.index(fact.worker) if several and fact.worker is not None else None
    spot = (place.host, place.local_rank, place.device) if place.host != "?" else (place.rank,)
    return ("place", *spot, slot)


def _charge(history: History, entries: list[Entry]) -> Charge:
    latest = max(entries, key=lambda entry: (entry.binding, entry.evidence.step))
    fact, place = latest.evidence, place_of(history.bound(latest.binding), latest.evidence)
    worker = fact.worker
    if worker is None and place is not None and len(place.workers) == 1:
        worker = place.workers[0]
    rank = place.rank if place else fact.rank
    counts = Counter(entry.evidence.reason for entry in entries)
    steps = sorted({entry.evidence.step for entry in entries})
    details = dict.fromkeys(entry.evidence.detail for entry in entries if entry.evidence.detail)
    return Charge(
        "rank" if worker is None else "worker",
        ((worker,) if worker is not None else place.workers if place else ()),
        () if rank is None else (rank,),
        place,
        place.host if place and place.host != "?" else "",
        dict(counts),
        tuple(steps),
        steps[-1],
        tuple(details)[:3],
    )


def collapsed(charged: list[Charge], binding: Binding) -> list[Charge]:
    """The same, with a rank in place of all of its workers, and a host in place of all of its ranks.

    Only where another rank, or host, has nothing entered against it: else the fault is no single machine's.
    """
    at_rank = _merged(charged, {(place.rank,): place.workers for place in binding.places}, "rank")
    hosts: dict[tuple[object, ...], tuple[int, ...]] = {}
    for place in binding.places:
        if place.host != "?":
            hosts[(place.host,)] = (*hosts.get((place.host,), ()), place.rank)
    return _sorted(_merged(at_rank, hosts, "host"))


def _merged(
    charged: list[Charge], parts: dict[tuple[object, ...], tuple[int, ...]], level: Literal["rank", "host"]
) -> list[Charge]:
    """Charges with those merged that together cover all the workers of a rank, or all the ranks of a host."""
    covered = {}
    for key, members in parts.items():
        inside = [c for c in charged if _within(c, key, level)]
        if {member for c in inside for member in _members(c, level)} >= set(members) and members:
            covered[key] = inside
    if len(covered) == len(parts):
        return charged
    whole = {key: inside for key, inside in covered.items() if len(parts[key]) > 1 and len(inside) > 1}
    gone = [id(c) for inside in whole.values() for c in inside]
    return [_union(inside, level) for inside in whole.values()] + [c for c in charged if id(c) not in gone]


def _within(charge: Charge, key: tuple[object, ...], level: str) -> bool:
    return (charge.host,) == key if level == "host" else charge.ranks == key


def _members(charge: Charge, level: str) -> tuple[int, ...]:
    """Which ranks of a host a charge covers, or which workers of a rank."""
    if level == "host":  # a single worker out of several is not its rank
        held = charge.place.workers if charge.place else ()
        return charge.ranks if set(charge.workers) >= set(held) else ()
    return charge.workers


def _union(parts: list[Charge], level: Literal["rank", "host"]) -> Charge:
    counts: dict[str, int] = {}
    for part in parts:
        for reason, count in part.counts.items():  # votes add up; workers of a late rank are late together
            before = counts.get(reason, 0)
            counts[reason] = before + count if reason == "outvoted" else max(before, count)
    lasts = [part.last for part in parts if part.last is not None]
    return replace(
        parts[0],
        level=level,
        workers=tuple(sorted({worker for part in parts for worker in part.workers})),
        ranks=tuple(sorted({rank for part in parts for rank in part.ranks})),
        place=parts[0].place if level == "rank" else None,
        counts=counts,
        steps=tuple(sorted({step for part in parts for step in part.steps})),
        last=max(lasts, default=None),
        details=tuple(dict.fromkeys(detail for part in parts for detail in part.details))[:3],
    )


def _sorted(charged: Iterable[Charge]) -> list[Charge]:
    return sorted(charged, key=lambda c: (-sum(c.counts.values()), c.workers, c.ranks))
