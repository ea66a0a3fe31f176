"""Rows whose squared distances overflow float64 neither win nor break a rule, and huge rows still train.

horovod_byz 0.1.0. Symptom: one row of seven at 1e200, and Medoid elected it; MajorityVote(tolerance=...) let
it agree with every other; a rule of one's own failed alike. Cause: squares beyond 1e308 are infinite, every
sum of distances with them, and of equal sums the lowest row wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.aggregation import reach
from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Whole
from horovod_byz.kernels.rows import TILE, Rows
from horovod_byz.rules.base import RowRule
from sharding import run_sharded

D = TILE + 77


@dataclass(frozen=True)
class OnItsOwn(hb.MultiKrum):
    """A user's rule: says nothing of what it measures, and measures parts of the rows too."""

    measures: ClassVar[None] = None

    def weigh(self, statistics):
        everyone = np.arange(statistics.n)
        squares = statistics.take(everyone[::-1]).distances[::-1, ::-1]
        assert np.isfinite(squares).all()
        medoid = np.argmin(np.sqrt(squares).sum(axis=1))
        nearest = np.argsort(squares[medoid], kind="stable")
        return Weighted.uniform(statistics.n, nearest[: statistics.n - self.remaining_f(statistics)]).weights


RULES = [
    hb.Median(),
    hb.TrimmedMean(f=2),
    hb.MeanAroundMedian(f=2),
    hb.Phocas(f=2),
    hb.GeometricMedian(),
    hb.Medoid(),
    hb.Krum(f=2),
    hb.MultiKrum(f=2),
    hb.MultiKrum(f=2, m=9),
    hb.Bulyan(f=2),
    hb.BrSGD(),
    hb.MDA(f=2),
    hb.SMEA(f=2),
    hb.MoNNA(f=2, pivot=6),
    hb.CAF(f=2),
    hb.DnC(f=2, iterations=2),
    OnItsOwn(f=2),
    hb.Hierarchical(hb.Median(), hb.GeometricMedian(), groups=12),
    hb.Hierarchical(hb.MultiKrum(f=2), hb.Mean(), groups=1),
]
BY_ROWS = [rule for rule in RULES if isinstance(rule, RowRule)]


def honest(dtype=np.float64, n=12, d=D):
    return (1 + 0.1 * np.random.default_rng(3).standard_normal((n, d))).astype(dtype)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize(
    ("dtype", "first", "second"),
    [
        (np.float64, 1e155, 1e156),
        (np.float64, 1e200, 1e200),
        (np.float64, 1.7e308, -1.7e308),
        (np.float64, -1e300, 1e80),
        (np.float64, np.nan, 1e200),
        (np.float32, 3.4e38, -3.4e38),
    ],
)
def test_rows_that_overflow_do_not_win(rule, dtype, first, second):
    rows = honest(dtype)
    rows[0], rows[7] = first, second
    result = hb.aggregate(rows, rule)
    assert np.abs(result.value - 1).max() < 0.5
    assert [v.worker for v in result.verdicts if v.suspect] == [0, 7]
    if rule in BY_ROWS:
        assert result.weights[[0, 7]].max() < 1e-9
    for verdict in result.verdicts:
        assert np.isfinite(verdict.distance) or verdict.nonfinite
    value, outcomes = run_sharded(rule, rows, 2)
    np.testing.assert_array_equal(value, result.value)
    for outcome in outcomes:
        np.testing.assert_array_equal(outcome.weights, result.weights)
        assert [str(v) for v in outcome.verdicts] == [str(v) for v in result.verdicts]


@pytest.mark.parametrize("power", [600, 950, 1015])
@pytest.mark.parametrize(
    "rule", [hb.Mean(), hb.BrSGD(threshold=300.0), hb.CGE(2), hb.NormBoundedMean(), *RULES], ids=repr
)
def test_huge_rows_are_treated_as_small_ones(rule, power):
    rows = honest(n=12)
    rows[5] = -8.0
    scale = 2.0**power
    big = hb.BrSGD(threshold=300.0 * scale) if rule == hb.BrSGD(threshold=300.0) else rule
    want, got = hb.aggregate(rows, rule), hb.aggregate(rows * scale, big)
    np.testing.assert_array_equal(got.weights, want.weights)
    np.testing.assert_array_equal(got.value, want.value * scale)
    assert [v.reason for v in got.verdicts] == [v.reason for v in want.verdicts]
    value, _ = run_sharded(big, rows * scale, 2)
    np.testing.assert_array_equal(value, got.value)


@pytest.mark.parametrize("rule", BY_ROWS, ids=repr)
def test_small_rows_beside_huge_honest_ones(rule):
    rows = honest() * 1e200
    rows[[0, 7]] = honest()[:2]
    result = hb.aggregate(rows, rule)
    assert np.abs(result.value / 1e200 - 1).max() < 0.5
    assert [v.worker for v in result.verdicts if v.suspect] == [0, 7]


@pytest.mark.parametrize("rule", BY_ROWS, ids=repr)
def test_more_such_rows_than_f(rule):
    """Five of twelve: no promise covers them, and yet none of them is chosen, and each is named."""
    rows = honest()
    rows[:5] = 10.0 ** np.arange(200, 300, 20)[:, None]
    result = hb.aggregate(rows, rule)
    assert np.abs(result.value - 1).max() < 0.5
    assert [v.worker for v in result.verdicts if v.reason == "far"] == [0, 1, 2, 3, 4]


def test_each_excluded_row_lowers_f():
    rows = honest(n=7)
    rows[:2] = 1e200
    rows[2] = 3.0  # f = 2 counts the first two; of the five left all but none may be Byzantine
    wanted = hb.MultiKrum(f=0)(rows[2:])
    np.testing.assert_array_equal(hb.MultiKrum(f=2)(rows), wanted)


def test_verdicts_state_the_distance():
    rows = np.ones((7, 4))
    rows[0] = 1e200
    rows[1] = 1.7e308  # its length is over the largest float64
    verdicts = hb.aggregate(rows, hb.Median()).verdicts
    assert verdicts[0].distance == pytest.approx(2e200, rel=1e-12)
    assert verdicts[1].distance == np.finfo(np.float64).max
    assert [v.reason for v in verdicts] == ["far", "far", "", "", "", "", ""]


def test_ordinary_rows_are_measured_once(monkeypatch):
    """The check costs no pass: neither for ordinary rows nor for rows as far as squares reach."""
    passes = []
    measured = Statistics.measured

    def counted(self, wanted):
        passes.append(wanted.name)
        return measured(self, wanted)

    monkeypatch.setattr(Statistics, "measured", counted)
    rows = honest()
    rows[0] = 1e100
    for rule, statistic in [(hb.Krum(2), "distances"), (hb.GeometricMedian(), "gram"), (hb.BrSGD(), "brsgd")]:
        passes.clear()
        rule(rows)
        assert passes == [statistic]


class TestVote:
    @pytest.mark.parametrize("options", [{}, {"scope": "tensor"}])
    @pytest.mark.parametrize("usual", [1.0, 1e200, 1.7e308])
    @pytest.mark.parametrize("odd", [-1.0, 1e200, 1.7e308, np.nan])
    def test_with_a_tolerance(self, options, usual, odd):
        rows = np.random.default_rng(0).uniform(0.4, 0.5, 600) * np.ones((5, 1)) * usual
        rows[1:] *= 1 + 1e-9 * np.arange(4)[:, None]
        rows[0] = 0.9 * odd
        rows[3] = -0.95 * odd
        rule = hb.MajorityVote(tolerance=1e-6, **options)
        result = hb.aggregate(rows, rule, segments=(200, 600))
        np.testing.assert_array_equal(result.value, rows[2])
        assert [v.worker for v in result.verdicts if v.reason in ("outvoted", "non-finite")] == [0, 3]

    def test_no_majority_of_rows_that_overflow(self):
        rows = np.outer([1e200, 2e200, 3e200], np.ones(8))
        result = hb.aggregate(rows, hb.MajorityVote(tolerance=1e-3))
        assert not result.value.any()
        assert [v.reason for v in result.verdicts] == ["outvoted"] * 3


@pytest.mark.parametrize("scale", [1e200, 1e300])
@pytest.mark.parametrize("lie", [1.0, 1e250, np.nan])
def test_the_cyclic_code_of_huge_rows(scale, lie):
    rule = hb.Draco(f=2, code="cyclic")
    gradients = scale * (1 + np.random.default_rng(1).standard_normal((9, 300)))
    rows = np.stack([rule.encode(gradients[list(rule.batches(i, 9))], i, 9) for i in range(9)])
    rows[[1, 6]] = lie
    result = hb.aggregate(rows, rule)
    np.testing.assert_allclose(result.value / scale, (gradients / scale).mean(axis=0), rtol=1e-9, atol=1e-9)
    assert [v.worker for v in result.verdicts if v.reason in ("outvoted", "non-finite")] == [1, 6]


class TestLimits:
    def test_the_remaining_rows_are_finite_for_any_order_of_scales(self):
        rng = np.random.default_rng(5)
        for _ in range(200):
            n = int(rng.integers(1, 12))
            rows = rng.standard_normal((n, 3)) * 2.0 ** rng.uniform(-500, 1020, size=(n, 1))
            seen = []

            @dataclass(frozen=True)
            class Look(hb.Mean):
                def weigh(self, statistics):
                    seen.extend([statistics.distances, statistics.gram, statistics.squared_norms])  # noqa: B023
                    seen.extend(statistics.brsgd)  # noqa: B023
                    return np.ones(statistics.n) / statistics.n

            result = hb.aggregate(rows, Look())
            assert all(np.isfinite(values).all() for values in seen[-5:])
            assert np.count_nonzero(result.weights) > n / 2

    def test_a_rule_that_weighs_no_rows_sees_the_numbers_as_they_are(self):
        rows = np.ones((3, 2))
        rows[0] = 1e200
        assert np.isinf(Statistics(Whole(Rows(rows))).distances[0, 1])
        with pytest.raises(reach.OutOfReachError, match=r"rows \[0\]"):
            Statistics(Whole(Rows(rows))).checked.distances  # noqa: B018
        with pytest.raises(reach.OutOfReachError, match=r"rows \[\]"):
            Statistics(Whole(Rows(np.arange(3)[:, None] * 1e200))).checked.gram  # noqa: B018
