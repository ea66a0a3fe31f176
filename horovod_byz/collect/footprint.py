"""The memory that a session holds from step to step, in bytes, by rank: known before binding allocates it.

These follow the allocations of the sessions' constructors line by line; tests compare the two.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horovod_byz.aggregation.tiles import shards
from horovod_byz.collect.compression import Compression, Uncompressed
from horovod_byz.collect.layout import Layout

__all__ = ["Bound", "of_replicas", "of_root", "of_symmetric"]


@dataclass(frozen=True)
class Bound:
    """What is known of a job when it is bound.

    Attributes:
        layout: number of workers of each rank.
        d: number of coordinates.
        dtype: of the rows.
        compression: how rows are packed.
    """

    layout: Layout
    d: int
    dtype: Any = np.float32
    compression: Compression = field(default_factory=Uncompressed)

    @functools.cached_property
    def n(self) -> int:
        """Number of workers."""
        return self.layout.n

    @functools.cached_property
    def widths(self) -> tuple[int, ...]:
        """Coordinates of each rank's shard."""
        return tuple(end - begin for begin, end in shards(self.d, self.layout.size))

    def rows(self, n: int, width: int) -> int:
        """Bytes of n packed rows of `width` coordinates."""
        packed = self.compression.packed_dtype(np.dtype(self.dtype))
        return int(n * self.compression.cut(0, width)[1] * packed.itemsize)

    def values(self, width: int) -> int:
        """Bytes of `width` coordinates."""
        return int(width * np.dtype(self.dtype).itemsize)


def of_symmetric(bound: Bound, rank: int) -> int:
    """All rows, and the result."""
    return bound.rows(bound.n, bound.d) + bound.values(bound.d)


def of_root(bound: Bound, rank: int) -> int:
    """The result; on rank 0 all rows too."""
    return (bound.rows(bound.n, bound.d) if rank == 0 else 0) + bound.values(bound.d)


def of_replicas(bound: Bound, rank: int, replicas: int) -> int:
    """All rows over the shards of each role, their results, and the whole result."""
    mine = [bound.widths[(rank - role) % bound.layout.size] for role in range(replicas)]
    blocks = sum(bound.rows(bound.n, width) + bound.values(width) for width in mine)
    return blocks + bound.values(bound.d)
