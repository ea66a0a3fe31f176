"""Infers the late ranks from the ranks' announcements: a pure function, without waiting or network.

A rank that waits for another is not late, wherever it waits; nor is a rank that gave up and announced it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from horovod_byz.collect.errors import names
from horovod_byz.collect.notice import Notice, State


@dataclass(frozen=True)
class Finding:
    """The ranks that an error names, and the sentence with the reason.

    Attributes:
        late: the ranks.
        text: the sentence.
        doubtful: those of `late` that may be as good as the others: somebody ended their process by SIGTERM,
            as a scheduler ends all of a job, a moment apart.
    """

    late: tuple[int, ...]
    text: str
    doubtful: tuple[int, ...] = ()

    @property
    def certain(self) -> tuple[int, ...]:
        """The ranks that failed by themselves."""
        return tuple(rank for rank in self.late if rank not in self.doubtful)


class Inquiry:
    """Compares announcements that one rank read at different times.

    Args:
        own: this rank's notice: WAITING at its time-out, RAISED when its operation broke off.
        size: number of ranks.
        signs_of_life: whether ranks also announce themselves while they compute.

    Attributes:
        looks: number of times that the announcements were read.
    """

    def __init__(self, own: Notice, size: int, signs_of_life: bool = False) -> None:
        self._own, self._others = own, [rank for rank in range(size) if rank != own.rank]
        self._signs_of_life = signs_of_life
        self._first: Mapping[int, Notice] = {}
        self._last: dict[int, Notice] = {}
        self.looks = 0

    def look(self, notices: Mapping[int, Notice]) -> None:
        """Adds a reading of the announcements; a rank without one keeps its last."""
        if not self.looks:
            self._first = dict(notices)
        self._last.update(notices)
        self.looks += 1

    @property
    def open(self) -> list[int]:
        """Ranks whose next notice may change the finding."""
        return [rank for rank in self._others if rank not in {*self._in(State.LEFT), *self._raised()}]

    @property
    def absent(self) -> list[int]:
        """Ranks that neither wait nor gave up at this step.

        If the operation broke off, ranks with signs of life are not absent either: a computing rank notices
        the break at its next wait only.
        """
        there = {*self._waiting(), *self._raised(), *self._in(State.LEFT, State.ALIVE)}
        if self._own.state is State.RAISED:
            there.update(self._computing())
        return [rank for rank in self._others if rank not in there]

    def settled(self) -> bool:
        """Whether further readings cannot change the finding."""
        absent = set(self.absent)
        return bool(not absent or self._in(State.LEFT) or absent <= self._blamed())

    def finding(self) -> Finding:
        """Names the ranks that kept the others waiting."""
        if not self._others:
            return Finding((), "this job has one rank, so no other is late")
        left, raised = self._in(State.LEFT), self._raised()
        if left:
            # The others may not have noticed yet; those that left explain why the job ended.
            return Finding(tuple(left), self._reasons("left or failed", left))
        if self.absent:
            # Those that gave up before saw who was missing then; the others may only be busy since.
            late = [rank for rank in self.absent if rank in self._blamed()] or self.absent
            also = f"; {names(raised)} gave up as well" if raised else ""
            return Finding(tuple(late), self._missing(late) + also)
        return self._nobody_is_absent(raised)

    def _nobody_is_absent(self, raised: list[int]) -> Finding:
        there = {*self._waiting(), *raised, *self._in(State.ALIVE), *self._computing()}
        late = sorted(self._blamed() - there)
        if late:
            gave_up = [rank for rank in raised if set(self._last[rank].blamed) & set(late)]
            myself = ", this rank" if late == [self._own.rank] else ""
            return Finding(tuple(late), f"{names(gave_up)} gave up waiting for {names(late)}{myself}")
        troubled = [rank for rank in raised if self._last[rank].reason]
        if troubled:
            return Finding((), f"no rank is late: {self._reasons('raised an error', troubled)}")
        ended = [rank for rank in self._in(State.ALIVE) if self._last[rank].reason]
        if ended:
            # Of several, the launcher ended all but the first, which cannot be told from the others.
            alone = tuple(ended) if len(ended) == 1 else ()
            return Finding(alone, self._reasons("left", ended), doubtful=alone)
        return Finding((), self._all_there())

    def _in(self, *states: State) -> list[int]:
        return [rank for rank in self._others if rank in self._last and self._last[rank].state in states]

    def _waiting(self) -> list[int]:
        return [rank for rank in self._in(State.WAITING) if self._lives(rank)]

    def _computing(self) -> list[int]:
        return [rank for rank in self._in(State.MOVING) if self._lives(rank)]

    def _lives(self, rank: int) -> bool:
        """Whether the rank announced something while this one looked."""
        return rank not in self._first or self._first[rank].beat != self._last[rank].beat

    def _raised(self) -> list[int]:
        """Ranks that gave up at this rank's place.

        A rank that gave up earlier does not count: this rank went on from that error, so a rank that did not
        is missing now.
        """
        return [rank for rank in self._in(State.RAISED) if self._is_here(self._last[rank])]

    def _is_here(self, notice: Notice) -> bool:
        # An operation that broke off there may have completed here: then the other rank is one step behind.
        behind = 0 if notice.reason else 1
        return notice.session != self._own.session or notice.step >= self._own.step - behind

    def _blamed(self) -> set[int]:
        """Ranks that others blame for giving up; an error with its own reason blames no rank."""
        gave_up = [self._last[rank] for rank in self._raised() if not self._last[rank].reason]
        return {blamed for notice in gave_up for blamed in notice.blamed}

    def _missing(self, late: list[int]) -> str:
        busy = [rank for rank in late if rank in self._computing()]
        earlier = [rank for rank in late if rank in self._in(State.RAISED)]
        text = f"{names(late)} did not arrive: look for a crash, a stall or a longer step there"
        if self._signs_of_life and not busy:
            text = f"{names(late)} did not arrive, without a sign of life: look for a crash or a stop there"
        elif busy == late:
            text = f"{names(late)} did not arrive, though its process lives: look for a longer step there"
        return text + (f" ({self._reasons('raised before', earlier)})" if earlier else "")

    def _all_there(self) -> str:
        """The sentence if all ranks live and wait, perhaps for different operations."""
        waiting: dict[tuple[str, str], list[int]] = {}
        for notice in [self._own, *(self._last[rank] for rank in self._waiting())]:
            waiting.setdefault((notice.session, notice.place), []).append(notice.rank)
        if len(waiting) < 2:
            return (
                "all ranks are there, so Horovod, torch.distributed or the network between them is at fault"
            )
        where = "; ".join(f"{names(ranks)}: {at} ({what})" for (what, at), ranks in waiting.items())
        return f"all ranks wait, but not for the same; one made more or fewer calls than the others: {where}"

    def _reasons(self, verb: str, ranks: list[int]) -> str:
        reasons = [(rank, self._last[rank].reason) for rank in ranks if self._last[rank].reason]
        if len(ranks) == 1 and reasons:
            return f"{names(ranks)} {verb} ({reasons[0][1]})"
        listed = "; ".join(f"rank {rank}: {reason}" for rank, reason in reasons)
        return f"{names(ranks)} {verb}" + (f" ({listed})" if listed else "")
