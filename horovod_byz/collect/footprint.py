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
from horovod_byz.collect.protocol import MOST_ELEMENTS

__all__ = ["Bound", "gathers", "of_replicas", "of_root", "of_symmetric"]

# Least coordinates of a piece of the root's result: to gather shorter ones takes longer than to send it all.
_LEAST = 2**14


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

    def packed(self, rank: int) -> int:
        """Bytes of a rank's own rows, packed; 0 where they are sent as they are."""
        plain = isinstance(self.compression, Uncompressed)
        return 0 if plain else self.rows(self.layout.rows[rank], self.d)

    def values(self, width: int) -> int:
        """Bytes of `width` coordinates."""
        return int(width * np.dtype(self.dtype).itemsize)


def of_symmetric(bound: Bound, rank: int) -> int:
    """All rows, and the result."""
    return bound.rows(bound.n, bound.d) + bound.values(bound.d) + bound.packed(rank)


def of_root(bound: Bound, rank: int) -> int:
    """The result, and this rank's piece of it where those are gathered; on rank 0 all rows too."""
    piece = bound.values(bound.widths[rank]) if gathers(bound.layout.size, bound.d) else 0
    rows = bound.rows(bound.n, bound.d) if rank == 0 else 0
    return rows + bound.values(bound.d) + piece + bound.packed(rank)


def gathers(size: int, d: int, most: int = MOST_ELEMENTS) -> bool:
    """Whether the ranks gather the root's result in pieces; else the root sends all of it to each."""
    return size >= 3 and size * _LEAST <= d <= most


def of_replicas(bound: Bound, rank: int, replicas: int) -> int:
    """All rows over the shards of each role, their results, and the whole result.

    The whole result arrives where the first role's rows were, unless those are packed; see `sharded.room`.
    """
    mine = [bound.widths[(rank - role) % bound.layout.size] for role in range(replicas)]
    first, *others = [bound.rows(bound.n, width) for width in mine]
    whole = bound.values(bound.d)
    shared = max(first, whole) if isinstance(bound.compression, Uncompressed) else first + whole
    return shared + sum(others) + sum(map(bound.values, mine)) + bound.packed(rank)
