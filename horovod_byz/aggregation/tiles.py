"""The one order in which coordinates are added up: a binary tree over tiles.

Floating-point addition is not associative. A sum over coordinates follows one fixed binary tree over tiles of
`TILE` coordinates, so that shards, blocks and threads all give the same bits: a shard of whole tiles is a
handful of nodes of that tree, which any rank can finish.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from horovod_byz.kernels.rows import TILE


def shards(d: int, count: int) -> list[tuple[int, int]]:
    """Splits d coordinates into `count` ranges of whole tiles, as even as tiles allow.

    Args:
        d: number of coordinates.
        count: number of shards, one per aggregating rank.

    Returns:
        `count` pairs (begin, end), in order, covering [0, d); trailing ones may be empty.
    """
    tiles = -(-d // TILE)
    cuts = [min(d, TILE * (tiles * k // count)) for k in range(count)] + [d]
    return list(itertools.pairwise(cuts))


def overlaps(ends: Sequence[int], offset: int, width: int) -> list[tuple[int, int]]:
    """Which columns of a block belong to each segment; begin >= end where none does.

    Args:
        ends: the coordinate after each segment's last.
        offset: the block's first coordinate.
        width: its number of columns.
    """
    cuts = [min(max(end - offset, 0), width) for end in (0, *ends)]
    return list(itertools.pairwise(cuts))


def nodes(begin: int, end: int, d: int) -> list[tuple[int, int]]:
    """The largest aligned nodes (first tile, number of tiles) of the summation tree in [begin, end).

    The last node of the last shard may reach past the end of the coordinates: its missing right
    children count nothing, wherever the coordinates are split.
    """
    tile, last, total = begin // TILE, -(-end // TILE), -(-d // TILE)
    covering = []
    while tile < last:
        size = 1
        while tile % (2 * size) == 0 and size < total and (tile + 2 * size <= last or last == total):
            size *= 2
        covering.append((tile, size))
        tile += size
    return covering


def tree_sum(first: int, size: int, total: int, leaf: Callable[[int, int], Any]) -> Any:
    """Adds up the leaves of the node [first, first + size) in the tree's own order.

    Args:
        first: first tile, a multiple of `size`.
        size: number of tiles, a power of two.
        total: number of tiles in all; leaves from there on do not exist.
        leaf: `leaf(first, size)` is the known sum of a node, or None to go one level down.
    """
    known = leaf(first, size)
    if known is not None:
        return known
    half = size // 2
    left = tree_sum(first, half, total, leaf)
    if first + half >= total:
        return left
    return left + tree_sum(first + half, half, total, leaf)
