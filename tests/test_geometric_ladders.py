"""Geometric median and medoid beside rows at several scales, each of which swallows sums of the ones below.

horovod_byz 0.1.0. Symptom: two Byzantine rows of 20 at 1e19 and 1e36 put the result 3e9 away from honest rows
of scale 1. Cause: every sum of distances was 1e36 after rounding, so the iteration started at the row at
1e19, and measured by its neighbours when to stop.
"""

from __future__ import annotations

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.aggregation.reach import near_rows
from horovod_byz.rules import weiszfeld as iteration
from sharding import run_sharded

# Byzantine rows at 10^low .. 10^high, in units of the honest rows' scale.
LADDERS = [(19, 36), (12, 29), (6, 24), (2, 19), (0, 36), (-8, 8), (1, 1), (30, 30), (3, 60), (100, 140)]
SIZES = [(3, 1), (5, 2), (9, 3), (15, 7), (20, 2), (45, 22)]


def ladder(n, f, low, high, dtype, scale, seed, d=33):
    """Honest rows and a ladder of Byzantine ones: in one direction, in one for each, or on both sides."""
    rng = np.random.default_rng([n, f, seed])
    rows = (3 + rng.standard_normal((n, d))) * scale
    direction = rng.standard_normal((f, d) if seed % 3 == 0 else d)
    if seed % 3 == 2:
        direction = direction * np.where(np.arange(f) % 2, 1, -1)[:, None]
    bad = np.arange(f) if seed % 2 else n - 1 - np.arange(f)
    rows[bad] = direction * scale * np.logspace(low, high, f)[:, None]
    limit = float(np.finfo(dtype).max)
    return np.clip(rows, -limit, limit).astype(dtype), bad


def error_and_radius(value, rows, bad):
    honest = np.delete(rows, bad, axis=0).astype(float)
    centre = honest.mean(axis=0)
    return np.linalg.norm(value - centre), np.linalg.norm(honest - centre, axis=1).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "f"), SIZES)
def test_the_theorems_bound_holds(n, f, dtype):
    """|z - mu| <= 2 (n - f) / (n - 2f) R; for the medoid, a row instead of any point, twice that and R."""
    for low, high in LADDERS:
        for seed, scale in enumerate([1.0, 1e-3, 1e-20, 1e6, 1e-3, 1e10]):
            rows, bad = ladder(n, f, low, high, dtype, scale, seed)
            bound = 2 * (n - f) / (n - 2 * f)
            error, radius = error_and_radius(hb.GeometricMedian()(rows), rows, bad)
            assert error <= (1 + 1e-5) * bound * radius, (low, high, seed)
            error, radius = error_and_radius(hb.Medoid()(rows), rows, bad)
            assert error <= (2 * bound + 1) * radius, (low, high, seed)


@pytest.mark.parametrize(("low", "high"), [(19, 36), (9, 9), (6, 24)])
def test_far_rows_pull_by_unit_vectors(low, high):
    """The point itself, not only its bound: as if each far row stood at 10^7 in its direction."""
    rows, bad = ladder(20, 6, low, high, np.float64, 1.0, seed=0)
    nearer = rows.copy()
    nearer[bad] *= 1e7 / np.linalg.norm(rows[bad], axis=1, keepdims=True)
    np.testing.assert_allclose(hb.GeometricMedian()(rows), hb.GeometricMedian()(nearer), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", [hb.GeometricMedian(), hb.Medoid()], ids=repr)
def test_shards_give_the_same_bits(rule):
    rows, _ = ladder(12, 4, 6, 30, np.float32, 1.0, seed=1, d=10_000)
    want = rule(rows)
    for count in (2, 3):
        np.testing.assert_array_equal(run_sharded(rule, rows, count)[0], want)


def test_identical_rows_are_the_median_whatever_else_is_there():
    rows = np.full((7, 5), 2.0)
    rows[[0, 2, 5]] = [[1e-9], [1e9], [1e30]]
    for rule in (hb.GeometricMedian(), hb.Medoid()):
        result = hb.aggregate(rows, rule)
        np.testing.assert_array_equal(result.value, np.full(5, 2.0))
        assert result.weights[1] == 1.0


def test_rows_of_like_size_are_all_near():
    """Where every sum is exact enough, all sums stay as they were."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((9, 4)) * 10.0 ** rng.uniform(-3, 6, size=(9, 1))
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    assert near_rows(squares)[1].all()


class TestSlowCorners:
    """Where Weiszfeld's iteration creeps, Newton's steps end it: 1000 rows took 1000 iterations."""

    @pytest.mark.parametrize("n", [40, 300])
    @pytest.mark.parametrize("shape", ["curve", "two clusters", "two scales"])
    def test_iterations_are_few_and_the_pull_vanishes(self, shape, n, monkeypatch):
        rng, k = np.random.default_rng(0), np.arange(n)
        rows = {
            "curve": np.stack([(k - 0.5) ** 2.0 * np.where(k % 2, 1, -1), 1.0 * k], axis=1),
            "two clusters": 1e-3 * rng.standard_normal((n, 64)) + 5.0 * (k < n // 2)[:, None],
            "two scales": np.stack([np.logspace(-15, 15, n), 1e-3 * np.logspace(15, -15, n)], axis=1),
        }[shape]
        calls = []
        apart = iteration.apart
        monkeypatch.setattr(iteration, "apart", lambda *given: calls.append(1) or apart(*given))
        result = hb.aggregate(rows, hb.GeometricMedian())
        assert len(calls) <= 130
        assert result.weights.min() >= 0
        assert result.weights.sum() == pytest.approx(1.0)
        away = rows - result.value
        length = np.linalg.norm(away, axis=1, keepdims=True)
        assert np.linalg.norm((away / length).sum(axis=0)) <= 1e-6 * n
