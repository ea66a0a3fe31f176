"""Finds ranks that keep the others waiting, from the seconds that each rank gives in its header.

A rank is slow when, in most steps of a window and in their median, it computes half as long again as the
median of the others; or twice as long as in its own earlier windows while the others do not. It is a notice
and no accusation: the seconds are what a rank says of itself, and an honest host may be slow.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.quiet import Quiet

if TYPE_CHECKING:
    from horovod_byz.ledger.ledger import Ledger

__all__ = ["SlowRanks"]

WINDOW = 20  # steps
OTHERS = 1.5  # times the others' median
PAST = 2.0  # times its own earlier median
SHARE = 0.75  # of a window's steps: a rank that writes a checkpoint now and then is not slow
LEAST = 0.02  # seconds in a step; less is noise, and saves nobody anything
_REMEMBERED = 64  # windows


class SlowRanks(Quiet):
    """Enters the notice "slow" when a rank becomes slow; again only after it was not."""

    def __init__(self) -> None:
        self._window: list[dict[int, float]] = []
        self._past: dict[int, deque[float]] = {}
        self._slow: set[int] = set()

    def bound(self, ledger: Ledger, facts: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # other ranks or other hosts from here on

    def stepped(self, ledger: Ledger, result: Any, step: int) -> None:
        seconds = {pace.rank: pace.compute for pace in getattr(result, "paces", ()) if pace.compute > 0.0}
        idle = {place.rank for place in ledger.places if not place.workers}  # a dedicated root
        seconds = {rank: value for rank, value in seconds.items() if rank not in idle}
        if len(seconds) < 2:
            return
        self._window.append(seconds)
        if len(self._window) == WINDOW:
            self._judge(ledger, step)
            self._window.clear()

    def _judge(self, ledger: Ledger, step: int) -> None:
        ranks = sorted(set.intersection(*(set(seconds) for seconds in self._window)))
        medians = {rank: statistics.median(seconds[rank] for seconds in self._window) for rank in ranks}
        details = {rank: self._detail(rank, medians) for rank in ranks}
        slow = {rank for rank, detail in details.items() if detail}
        for rank in sorted(slow - self._slow):
            workers = next((place.workers for place in ledger.places if place.rank == rank), ())
            worker = workers[0] if len(workers) == 1 else None
            ledger.enter(Evidence(step, "notice", "slow", worker, rank, details[rank]))
        self._slow = slow
        for rank in ranks:
            self._past.setdefault(rank, deque(maxlen=_REMEMBERED)).append(medians[rank])

    def _detail(self, rank: int, medians: dict[int, float]) -> str:
        own = medians[rank]
        others = [value for other, value in medians.items() if other != rank]
        if not others:
            return ""
        usual = statistics.median(others)
        if _exceeds(own, OTHERS, usual) and self._mostly(rank):
            return f"computes {own:.3g} s a step, the median of the others {usual:.3g} s"
        past = self._past.get(rank)
        if past and _exceeds(own, PAST, statistics.median(past)) and not self._all_slower(rank, medians):
            return f"computes {own:.3g} s a step, and {statistics.median(past):.3g} s before"
        return ""

    def _mostly(self, rank: int) -> bool:
        """Whether the rank is slower than the others in most steps of the window."""
        above = [_exceeds(seconds[rank], OTHERS, _others(rank, seconds)) for seconds in self._window]
        return sum(above) >= SHARE * len(above)

    def _all_slower(self, rank: int, medians: dict[int, float]) -> bool:
        """Whether the others, too, became slower: the work has grown, and no rank is to blame."""
        grown = [
            value > OTHERS * statistics.median(self._past[other])
            for other, value in medians.items()
            if other != rank and self._past.get(other)
        ]
        return sum(grown) * 2 >= max(1, len(grown))


def _exceeds(own: float, times: float, usual: float) -> bool:
    return own > times * usual and own - usual > LEAST


def _others(rank: int, seconds: dict[int, float]) -> float:
    values: Sequence[float] = [value for other, value in seconds.items() if other != rank]
    return statistics.median(values)
