"""How long each rank computes and waits; the seconds travel in the header of each step.

So every rank knows the same numbers of all ranks, at no further message. They are what each rank says of
itself: they may point an operator to a slow host, and prove nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from horovod_byz.collect.header import Header

__all__ = ["Pace", "RankPace", "read"]


@dataclass(frozen=True)
class RankPace:
    """The seconds of one rank, as it gives them.

    Attributes:
        rank: the rank.
        compute: from the end of its last step to the header of this one, without `apply`.
        apply: what its optimizer took to apply the last aggregate.
        wait: what it waited for the others' headers at the last step.
    """

    rank: int
    compute: float
    apply: float
    wait: float


class Pace:
    """Measures this rank's seconds between and inside steps.

    Attributes:
        said: the seconds for the next header; zeros before there was a step.
    """

    def __init__(self) -> None:
        self.said = {"compute": 0.0, "apply": 0.0, "wait": 0.0}
        self._left: float | None = None
        self._waited = self._applied = 0.0

    def arrive(self) -> None:
        """A step begins."""
        between = 0.0 if self._left is None else time.perf_counter() - self._left
        compute = max(0.0, between - self._applied)
        self.said = {"compute": compute, "apply": self._applied, "wait": self._waited}
        self._waited = self._applied = 0.0

    def leave(self) -> None:
        """A step ends."""
        self._left = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, this rank waits for the others' headers."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def applying(self) -> Iterator[None]:
        """Inside, an optimizer applies the aggregate."""
        start = time.perf_counter()
        yield
        self._applied += time.perf_counter() - start


def read(headers: Sequence[Header]) -> tuple[RankPace, ...]:
    """Each rank's seconds, from the headers of a step."""
    return tuple(RankPace(rank, h.compute, h.apply, h.wait) for rank, h in enumerate(headers))
