"""One rank's share of an aggregation, as one value that is handed on whole."""

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
    """Which coordinates a rank aggregates, at which step, and with what.

    Attributes:
        d: number of coordinates, all shards together.
        offset: first coordinate of this shard; a multiple of `TILE`, as `tiles.shards` gives it.
        reduce: gathers every shard's partial statistics, in the order of `tiles.shards`.
        step: optimizer step, for rules that draw at random.
        threads: threads for the kernels; the result does not depend on it.
        segments: the coordinate after each tensor's last, for rules that treat tensors separately.
    """

    d: int
    offset: int = 0
    reduce: Reduce = alone
    step: int = 0
    threads: int = 1
    segments: tuple[int, ...] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether this rank holds every coordinate."""
        return self.reduce is alone
