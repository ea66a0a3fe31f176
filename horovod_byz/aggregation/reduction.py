"""Sums a statistic over the coordinates: over this shard node by node, then over all shards in tree order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Source
from horovod_byz.aggregation.statistic import Statistic
from horovod_byz.aggregation.tiles import nodes, shards, tree_sum
from horovod_byz.kernels.rows import TILE


def reduced(statistic: Statistic, source: Source, shard: Shard) -> npt.NDArray[Any]:
    """The sum over all coordinates, with the same bits on every rank.

    Args:
        statistic: the statistic to sum.
        source: the rows over this rank's shard.
        shard: the shard.
    """
    tiles = -(-shard.d // TILE)

    def over(begin: int, end: int, column: int) -> list[Any]:
        """Over the coordinates [begin, end), the first of which is that column: the sum of each node."""

        def leaf(first: int, size: int) -> Any:
            low, high = first * TILE, min((first + size) * TILE, end)
            if size > 1 and (size * TILE > source.at_once or not statistic.in_one_call(low, high)):
                return None  # one level down, until a block or a segment holds the node
            return statistic.on(source, low - begin + column, high - begin + column, shard)

        return [tree_sum(first, size, tiles, leaf) for first, size in nodes(begin, end, shard.d)]

    ranges = list(zip(shard.columns.ranges, shard.columns.cuts, strict=True))
    # From the last range to the first, as the ranges arrive during a backward pass.
    sums_of = [over(begin, end, column) for (begin, end), (column, _) in reversed(ranges)]
    own = [node for sums in reversed(sums_of) for node in sums]
    # A shard without coordinates still sends one partial, of zeros: all ranks send equal shapes.
    partials = shard.reduce(np.stack(own or [statistic.on(source, 0, 0, shard)]))
    sums: dict[tuple[int, int], Any] = {}
    for (low, high), partial in zip(shards(shard.d, len(partials)), partials, strict=True):
        sums.update(zip(nodes(low, high, shard.d), partial, strict=False))  # not strict: see the zeros above
    if not sums:  # no coordinates at all
        return np.asarray(partials[0][0])
    root = 1
    while root < tiles:
        root *= 2
    return np.asarray(tree_sum(0, root, tiles, lambda first, size: sums.get((first, size))))
