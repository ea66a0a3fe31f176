"""The coordinates that a rank aggregates, with the settings of the aggregation, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

# A statistic of one shard: its nodes of the summation tree along the first axis.
Partial = npt.NDArray[Any]
Reduce = Callable[[Partial], list[Partial]]


def alone(partial: Partial) -> list[Partial]:
    """The `reduce` of a rank that holds every coordinate."""
    return [partial]


@dataclass(frozen=True, eq=False)
class Shard:
    """A range of coordinates, the optimizer step, and the settings with which a rank aggregates it.

    Attributes:
        d: number of coordinates, all shards together.
        offset: first coordinate of this shard, a multiple of `TILE`.
        reduce: gathers every shard's partial statistics, in the order of `tiles.shards`.
        step: optimizer step, which seeds randomised rules.
        threads: threads for the kernels; the result does not depend on it.
        segments: the coordinate after each tensor's last, for rules that treat tensors separately.
        memory: this shard's coordinates of the last result, for rules that remember; None for zeros.
    """

    d: int
    offset: int = 0
    reduce: Reduce = alone
    step: int = 0
    threads: int = 1
    segments: tuple[int, ...] | None = None
    memory: npt.NDArray[Any] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether this rank holds every coordinate."""
        return self.reduce is alone
