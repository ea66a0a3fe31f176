"""How rows are cut for `Sharded`: into buckets, which travel one after another, and those into ranges.

All ranges are `tiles.shards` of the coordinates: those of bucket b are the ranges from b * size on, one per
rank. So every rank aggregates a part of each bucket, and the traffic of a bucket is as even as that of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from horovod_byz.aggregation.shard import Partial
from horovod_byz.aggregation.tiles import Range, nodes, shards

# Coordinates of a bucket while gradients are computed: 4 MiB of float32. Smaller ones leave earlier; each
# takes some operations between the ranks.
_WIDTH = 2**20
_MOST_BUCKETS = 16


@dataclass(frozen=True)
class Buckets:
    """The buckets of d coordinates.

    Attributes:
        d: number of coordinates.
        size: number of ranks.
        count: number of buckets.
    """

    d: int
    size: int
    count: int = 1

    @classmethod
    def of(cls, d: int, size: int, n: int, most: int, *, overlap: bool) -> Buckets:
        """The buckets of a session.

        Args:
            d: number of coordinates.
            size: number of ranks.
            n: number of rows.
            most: largest number of elements in one operation, all ranks together.
            overlap: whether buckets leave while others are computed; else as few as `most` allows.
        """
        wanted = min(_MOST_BUCKETS, d // _WIDTH) if overlap else 1
        least = -(-d * max(n, size) // most)
        # One more where ranges of whole tiles are uneven.
        return cls(d, size, max(1, wanted, least + (least > 1)))

    @cached_property
    def ranges(self) -> tuple[tuple[Range, ...], ...]:
        """Each bucket's range of each rank."""
        flat = shards(self.d, self.count * self.size)
        return tuple(tuple(flat[b * self.size : (b + 1) * self.size]) for b in range(self.count))

    @cached_property
    def spans(self) -> tuple[Range, ...]:
        """Each bucket's coordinates [begin, end)."""
        return tuple((ranges[0][0], ranges[-1][1]) for ranges in self.ranges)

    def held_by(self, rank: int) -> tuple[Range, ...]:
        """A rank's range of each bucket."""
        return tuple(ranges[rank] for ranges in self.ranges)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The first length of every statistic of each rank: an entry per node of the summation tree."""
        return tuple(max(1, sum(self._nodes(rank))) for rank in range(self.size))

    def in_order(self, partials: list[Partial]) -> list[Partial]:
        """Each rank's statistics, cut into those of its ranges, in the order of all ranges."""
        cut = []
        for rank, partial in enumerate(partials):
            counts = self._nodes(rank)
            # A rank without coordinates sends one entry, of zeros.
            whole = [partial] * self.count if not sum(counts) else np.split(partial, np.cumsum(counts)[:-1])
            cut.append(whole)
        return [cut[rank][bucket] for bucket in range(self.count) for rank in range(self.size)]

    def _nodes(self, rank: int) -> list[int]:
        return [len(nodes(begin, end, self.d)) for begin, end in self.held_by(rank)]
