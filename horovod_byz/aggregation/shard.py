"""The coordinates that a rank aggregates, with the settings of the aggregation, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy.typing as npt

from horovod_byz.aggregation.tiles import Columns, Range

# A statistic of one shard: its nodes of the summation tree along the first axis.
Partial = npt.NDArray[Any]
Reduce = Callable[[Partial], list[Partial]]


def alone(partial: Partial) -> list[Partial]:
    """The `reduce` of a rank that holds every coordinate."""
    return [partial]


@dataclass(frozen=True, eq=False)
class Shard:
    """Ranges of coordinates, the optimizer step, and the settings with which a rank aggregates them.

    Attributes:
        d: number of coordinates, all shards together.
        ranges: those of this shard, ascending, of whole tiles; () for all coordinates.
        reduce: given this shard's partial statistics, range after range, it gathers those of all ranges of
            all ranks, in the order of `tiles.shards`.
        step: optimizer step, which seeds randomised rules.
        threads: threads for the kernels; the result does not depend on it.
        segments: the coordinate after each tensor's last, for rules that treat tensors separately.
        memory: the last result, (d,), for rules that remember; None for zeros.
    """

    d: int
    ranges: tuple[Range, ...] = ()
    reduce: Reduce = alone
    step: int = 0
    threads: int = 1
    segments: tuple[int, ...] | None = None
    memory: npt.NDArray[Any] | None = None

    @cached_property
    def columns(self) -> Columns:
        """The coordinates of the columns of this shard's rows."""
        return Columns(self.ranges or ((0, self.d),))

    @property
    def is_whole(self) -> bool:
        """Whether this rank holds every coordinate."""
        return self.reduce is alone
