"""Statistics follow one summation tree, however the coordinates are split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Whole
from horovod_byz.aggregation.statistic import to_point
from horovod_byz.aggregation.tiles import nodes, shards
from horovod_byz.kernels.rows import TILE, Rows
from sharding import on_shards


@pytest.mark.parametrize("d", [0, 1, TILE, TILE + 1, 29 * TILE - 5, 64 * TILE])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_shards_cover_all_coordinates_in_whole_tiles(d, count):
    parts = shards(d, count)
    assert len(parts) == count
    assert parts[0][0] == 0
    assert parts[-1][1] == d
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert all(begin % TILE == 0 or begin == d for begin, _ in parts)


def test_nodes_are_aligned_and_cover_a_shard():
    d = 29 * TILE
    for begin, end in shards(d, 3):
        covered = [
            tile for first, size in nodes(begin, end, d) for tile in range(first, min(first + size, 29))
        ]
        assert covered == list(range(begin // TILE, end // TILE))
        assert all(first % size == 0 for first, size in nodes(begin, end, d))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [10, 3 * TILE + 17, 13 * TILE])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_sharded_statistics_have_the_same_bits(dtype, d, count):
    rows = np.random.default_rng(0).normal(size=(6, d)).astype(dtype)
    point = rows[0] / 3
    whole = everything(Statistics(Whole(Rows(rows))), point)

    def work(_, begin, end, reduce):
        source = Whole(Rows(np.ascontiguousarray(rows[:, begin:end])))
        return everything(Statistics(source, Shard(d, ((begin, end),), reduce)), point[begin:end])

    for seen in on_shards(count, d, work):
        for name, expected in whole.items():
            np.testing.assert_array_equal(seen[name], expected, err_msg=name)


def everything(statistics, point):
    scores, l1 = statistics.brsgd
    return {
        "nonfinite": statistics.nonfinite,
        "distances": statistics.distances,
        "gram": statistics.gram,
        "replicas": np.stack(statistics.replicas(((0, 2, 4), (1, 3, 5)))),
        "norms": statistics.squared_norms,
        "scores": scores,
        "l1": l1,
        "to_point": statistics.measured(to_point(point)),
    }
