"""Threads, instruction sets, memory layout and the cut into blocks change no bit of any kernel."""

import itertools

import numpy as np
import pytest

from horovod_byz.kernels import brsgd, coordinate, dispatch, distances, scan, vote
from horovod_byz.kernels.mixing import Mixing
from horovod_byz.kernels.rows import TILE, Rows
from kernel_cases import DTYPES, assert_bits, bits, call, half_of_them, normal, weighted, with_nonfinite

pytestmark = pytest.mark.usefixtures("level")


def every_result(rows, threads):
    n, rng = rows.n, np.random.default_rng(16)
    point = rng.standard_normal(rows.d).astype(rows.dtype)
    yield "median", call(coordinate.median, rows, threads=threads)
    yield "trimmed_mean", call(coordinate.trimmed_mean, rows, (n - 1) // 4, threads=threads)
    yield "mean_around_median", call(coordinate.mean_around_median, rows, n // 3, threads=threads)
    yield "phocas", call(coordinate.phocas, rows, (n - 1) // 3, threads=threads)
    mixing = Mixing(half_of_them(n, n + 3))
    mixtures = np.empty((mixing.k, rows.d), rows.dtype)
    mixing.mixtures(rows, mixtures, threads)
    yield "mixtures", mixtures
    for name, f in (("median", 0), ("trimmed_mean", n // 3), ("phocas", n // 3)):
        result = np.empty(rows.d, rows.dtype)
        mixing.rule(rows, (name, f), result, threads)
        yield f"{name} of mixtures", result
    yield "sign_majority", call(coordinate.sign_majority, rows, threads=threads)
    yield "weighted_sum", call(weighted, rows, rng.standard_normal(n), threads=threads)
    yield "squared", distances.squared(rows, threads=threads)
    yield "gram", distances.gram(rows, threads=threads)
    yield "to_point", distances.to_point(rows, point, threads=threads)
    yield "to_point_and_norms", distances.to_point_and_norms(rows, point, threads=threads)
    yield "combined", distances.combined(rows, ("median", 0), point.copy(), threads)
    yield from zip(("scores", "l1"), brsgd.statistics(rows, threads=threads), strict=True)
    yield "nonfinite", scan.nonfinite(rows, threads=threads)
    yield "mismatches", vote.mismatches(rows, threads=threads).astype(np.int64)
    yield "majority", np.array([vote.majority(rows, threads=threads)])


def assert_same(results, wanted):
    for (name, got), (_, value) in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(bits(got), bits(value), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_levels_and_layout_change_no_bit(dtype):
    x = with_nonfinite(np.random.default_rng(17), 6, 20 * TILE + 77, dtype)
    x[1:5, 5 * TILE :] = normal(np.random.default_rng(18), 4, 15 * TILE + 77, dtype)
    x[2] = x[1]
    here = dispatch.level()
    dispatch.use("generic")
    wanted = list(every_result(Rows(x), 1))
    dispatch.use(here)
    for threads in (1, 2, 7):
        assert_same(every_result(Rows(x), threads), wanted)
    assert_same(every_result(Rows([row.copy() for row in x]), 2), wanted)
    padded = np.zeros((6, x.shape[1] + 11), dtype)[:, 3:-8]
    padded[:] = x
    assert_same(every_result(Rows(padded), 1), wanted)
    padded.flags.writeable = False
    assert_same(every_result(Rows(padded), 1), wanted)


def tree(parts):
    """The sum of (tiles, value) nodes in the order of the binary tree."""
    stack = []
    for leaves, value in parts:
        stack.append((leaves, value))
        while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
            (size, right), (_, left) = stack.pop(), stack.pop()
            stack.append((2 * size, left + right))
    while len(stack) > 1:
        (_, right), (_, left) = stack.pop(), stack.pop()
        stack.append((0, left + right))
    return stack[0][1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("node", [1, 2, 4, 8])
def test_blocks_at_nodes_of_the_tree_change_no_bit(dtype, node):
    d, rng = 11 * TILE + 100, np.random.default_rng(19)
    x = normal(rng, 5, d, dtype)
    point = normal(rng, 1, d, dtype)[0]
    x[3] *= 1e10
    statistics = {
        "squared": lambda low, high: distances.squared(Rows(x).block(low, high)),
        "gram": lambda low, high: distances.gram(Rows(x).block(low, high)),
        "to_point": lambda low, high: distances.to_point(Rows(x).block(low, high), point[low:high]),
        "to_point_and_norms": lambda low, high: distances.to_point_and_norms(
            Rows(x).block(low, high), point[low:high]
        ),
        "l1": lambda low, high: brsgd.statistics(Rows(x).block(low, high))[1],
        "scores": lambda low, high: brsgd.statistics(Rows(x).block(low, high))[0],
    }
    edges = [*range(0, d, node * TILE), d]
    for name, statistic in statistics.items():
        parts = [(node, statistic(low, high)) for low, high in itertools.pairwise(edges)]
        np.testing.assert_array_equal(tree(parts), statistic(0, d), err_msg=name)
    rules = [(coordinate.median, ()), (coordinate.trimmed_mean, (1,)), (weighted, (np.ones(5),))]
    for kernel, args in rules:
        parts = [
            call(kernel, Rows(x).block(low, high), *args) for low, high in [(0, 33), (33, 5000), (5000, d)]
        ]
        assert_bits(np.concatenate(parts), call(kernel, Rows(x), *args))


def test_no_columns():
    rows = Rows(np.zeros((3, 0), np.float32))
    for name, value in every_result(rows, 2):
        assert value.shape[-1] in (0, 1, 3, 4), name
        assert not value.any()
