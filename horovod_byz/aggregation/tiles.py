"""The fixed order in which coordinates are added up: a binary tree over tiles.

Floating-point addition is not associative. A sum over coordinates follows one fixed binary tree over tiles of
`TILE` coordinates, so that shards, blocks and threads all give the same bits: a shard of whole tiles is a
few nodes of that tree, from which any rank can compute the root.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from horovod_byz.kernels.rows import TILE

Range = tuple[int, int]


@dataclass(frozen=True)
class Columns:
    """Which coordinates the columns of some rows are: ranges of coordinates, one after another.

    Attributes:
        ranges: (begin, end) of each range, ascending; each begins at a tile.
    """

    ranges: tuple[Range, ...]

    @classmethod
    def at(cls, offset: int, width: int) -> Columns:
        """`width` columns from the coordinate `offset` on."""
        return cls(((offset, offset + width),))

    def coordinate(self, column: int) -> int:
        """The coordinate of a column."""
        end = 0
        for begin, end in self.ranges:
            if column < end - begin:
                return begin + column
            column -= end - begin
        return end + column  # the one after the last, where a block without columns begins

    @property
    def cuts(self) -> list[Range]:
        """The columns (first, end) of each range."""
        ends = itertools.accumulate((end - begin for begin, end in self.ranges), initial=0)
        return list(itertools.pairwise(ends))


def shards(d: int, count: int) -> list[tuple[int, int]]:
    """Splits d coordinates into `count` ranges of whole tiles, as even as tiles allow.

    Args:
        d: number of coordinates.
        count: number of shards, one per aggregating rank.

    Returns:
        `count` pairs (begin, end), in order, covering [0, d); trailing ones may be empty.
    """
    tiles = -(-d // TILE)
    # Python integers: tiles * k is exact, so all ranks cut alike.
    cuts = [min(d, TILE * (tiles * k // count)) for k in range(count)] + [d]
    return list(itertools.pairwise(cuts))


def overlaps(ends: Sequence[int], offset: int, width: int) -> list[tuple[int, int]]:
    """The columns [begin, end) of a block in each segment; begin >= end for segments outside the block.

    Args:
        ends: the coordinate after each segment's last.
        offset: the block's first coordinate.
        width: its number of columns.
    """
    cuts = [min(max(end - offset, 0), width) for end in (0, *ends)]
    return list(itertools.pairwise(cuts))


def nodes(begin: int, end: int, d: int) -> list[tuple[int, int]]:
    """The largest aligned nodes (first tile, number of tiles) of the summation tree in [begin, end).

    The last node of the last shard may reach past the end of the coordinates: its missing right children
    add nothing, wherever the coordinates are split.
    """
    tile, last, total = begin // TILE, -(-end // TILE), -(-d // TILE)
    covering = []
    while tile < last:
        size = 1
        # Past the end only in the last shard, so that no two shards claim the same node.
        while tile % (2 * size) == 0 and size < total and (tile + 2 * size <= last or last == total):
            size *= 2
        covering.append((tile, size))
        tile += size
    return covering


def tree_sum(first: int, size: int, total: int, leaf: Callable[[int, int], Any]) -> Any:
    """Adds up the leaves of the node [first, first + size) in tree order.

    Args:
        first: first tile, a multiple of `size`.
        size: number of tiles, a power of two.
        total: number of tiles in all; there are no leaves beyond.
        leaf: `leaf(first, size)` is the sum of a node, or None to add up its two halves.
    """
    total_here = leaf(first, size)
    if total_here is not None:
        return total_here
    half = size // 2
    left = tree_sum(first, half, total, leaf)
    if first + half >= total:
        return left  # not left + 0: -0.0 + 0 would change a bit
    return left + tree_sum(first + half, half, total, leaf)
