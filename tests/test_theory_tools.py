"""The calculators that experiments lean on: BrSGD, z_max, counts, the gambler, the recommendation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from horovod_byz import theory
from horovod_byz.theory import brsgd, little, requirements

# BrSGD


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=15), st.data())
def test_safe_deviation(honest, data):
    """One dimension, mu = 0, threshold s: every mean of rows that pass Constraint 1 stays within 3 s."""
    s = max(abs(value) for value in honest)
    f = data.draw(st.integers(0, len(honest) - 1))
    rows = np.array(honest + data.draw(st.lists(st.floats(-10, 10), min_size=f, max_size=f)))
    passed = rows[np.abs(rows - np.median(rows)) <= 2 * s]
    assert len(passed) >= len(honest)
    assert np.abs(passed).max() <= brsgd.safe_deviation(s, f / len(rows)) * (1 + 1e-12)


def test_brsgd_calculators():
    assert brsgd.paper_deviation(0.1, 2.0, 0.5) == pytest.approx(3.1)
    assert brsgd.safe_deviation(2.0, 0.49) == 6.0
    with pytest.raises(ValueError, match="honest majority"):
        brsgd.safe_deviation(2.0, 0.5)
    assert brsgd.contraction(3.0, 1.0) == pytest.approx(0.75)
    assert brsgd.contraction(3.0, 1.0, steps=2) == pytest.approx(0.5625)
    assert brsgd.final_error(8.0, 0.5, 3.0, 1.0, 2) == pytest.approx(5.5)
    assert brsgd.rates(10_000, 100, 0.1).proved == pytest.approx(0.011)
    assert brsgd.rates(10_000, 100, 0.1).lower_bound == pytest.approx(0.002)


def test_brsgd_deviations():
    log = math.log(1 + 1000 * 20 * 2 * 3)
    assert brsgd.mean_deviation(1000, 20, 5, 2, 3) == pytest.approx(math.sqrt(8 * 5 / 20_000 * log))
    summed, product = 4 / 1000 * (5 * log + math.log(20)), 4 / 1000 * 5 * log * math.log(20)
    assert brsgd.worker_deviation(1000, 20, 5, 2, 3) == pytest.approx(math.sqrt(summed))
    assert brsgd.worker_deviation(1000, 20, 5, 2, 3, reading="product") == pytest.approx(math.sqrt(product))
    assert brsgd.worker_deviation(2, 20, 500, 2, 3, v=2) == pytest.approx(
        2 * 4 / 2 * (500 * math.log(241) + math.log(20))
    )
    assert brsgd.confidence(1000, 20, 5, 2, 3) == pytest.approx(1 - 20 / (1 + 120_000) ** 5)
    assert brsgd.confidence(1000, 20, 100_000, 2, 3) == 1.0


# a little is enough


@pytest.mark.parametrize(
    ("n", "f", "z"),
    [
        (45, 5, 0.12566),
        (15, 2, 0.09656),
        (50, 24, 1.42608),
        (51, 12, 0.36120),
        (25, 11, 1.06757),
        (20, 6, 0.36611),
    ],
)
def test_z_max(n, f, z):
    assert theory.z_max(n, f) == pytest.approx(z, abs=5e-6)


def test_z_max_supporters():
    assert little.supporters(45, 5) == 18
    assert (45 - 5 - 18) / (45 - 5) == 0.55
    assert theory.z_max(20, 11) == math.inf
    with pytest.raises(ValueError, match="honest worker"):
        theory.z_max(5, 5)


# counts


def test_bulyan_counts():
    assert theory.bulyan_counts(45, 5) == (35, 25)
    assert theory.bulyan_counts(15, 2) == (11, 7)
    assert requirements.requirement("bulyan").minimum(5) == 23
    assert requirements.requirement("bulyan").minimum(2) == 11
    message = r"Bulyan\(f=5\) needs n > 4f \+ 2 = 22 rows, got n = 22: use f <= 4 or at least 23 workers"
    with pytest.raises(ValueError, match=message):
        theory.bulyan_counts(22, 5)


def test_krum_neighbours():
    assert requirements.krum_neighbours(9, 3) == 4
    with pytest.raises(
        ValueError, match=r"n > 2f \+ 2 = 10 rows, got n = 9: use f <= 3 or at least 11 workers"
    ):
        requirements.krum_neighbours(9, 4)


# what the gambler hits


def test_gambler_on_the_mlp():
    gamble = theory.Gamble(d=118_282)
    assert gamble.coordinates == pytest.approx(5914, abs=0.5)
    assert gamble.hits == pytest.approx(59.1, abs=0.05)
    assert gamble.clean_workers == pytest.approx(1.04, abs=5e-3)
    assert gamble.column_exceeds(2) == pytest.approx(1.416e-7, rel=5e-4)
    assert gamble.columns_exceeding(2) == pytest.approx(0.42, abs=5e-3)
    assert gamble.coordinate_crash(2) == pytest.approx(0.34, abs=5e-3)
    assert gamble.columns_exceeding(1) == pytest.approx(140, abs=0.5)
    assert gamble.coordinate_crash(1) > 0.999999
    assert gamble.columns_exceeding(3) == pytest.approx(0.0009, abs=5e-5)
    assert gamble.column_exceeds(20) == 0.0


def test_gambler_on_the_cnn():
    gamble = theory.Gamble(d=2_431_018, rounds=4000)
    assert gamble.columns_exceeding(2) == pytest.approx(69, abs=0.5)
    assert gamble.columns_exceeding(3) == pytest.approx(0.15, abs=5e-3)
    assert gamble.columns_exceeding(4) == pytest.approx(2e-4, rel=0.3)


@pytest.mark.parametrize(
    ("nonzero", "clean", "none"), [(1.0, 0.052, 0.34), (0.5, 0.228, 0.0056), (0.25, 0.477, 2.3e-6)]
)
def test_gambler_on_sparse_gradients(nonzero, clean, none):
    gamble = theory.Gamble(d=118_282, nonzero=nonzero)
    assert gamble.clean_worker == pytest.approx(clean, abs=5e-4)
    assert gamble.no_clean_worker == pytest.approx(none, rel=0.02)


def test_gambler_crashes_selection_rules_where_gradients_are_dense():
    crash = {
        share: theory.Gamble(d=118_282, nonzero=share).selection_crash for share in (1.0, 0.5, 0.25, 0.0)
    }
    assert crash[1.0] > 0.99
    assert crash[0.5] == pytest.approx(0.94, abs=5e-3)
    assert crash[0.25] < 0.01
    assert crash[0.0] == 0.0
    assert theory.Gamble(d=2_431_018).selection_crash == 1.0


def test_gamble_errors():
    for options in ({"d": 0}, {"d": 10, "probability": 0}, {"d": 10, "nonzero": 1.5}):
        with pytest.raises(ValueError, match="Gamble"):
            theory.Gamble(**options)


# the recommendation


def test_operations():
    assert theory.operations("krum", 20, 100) == 40_000
    assert theory.operations("brsgd", 20, 200) == 2 * theory.operations("brsgd", 20, 100)
    assert theory.operations("median", 32, 100) == pytest.approx(32 * 5 * 100)
    assert requirements.detox_operations(45, 10, 5) == 45 * 10 + 25 * 10
    with pytest.raises(ValueError, match="unknown rule 'kurm': choose one of mean, median"):
        theory.operations("kurm", 20, 100)


@pytest.mark.parametrize(
    ("rule", "n", "most"),
    [
        ("mean", 20, 0),
        ("median", 20, 9),
        ("median", 25, 12),
        ("krum", 20, 8),
        ("krum", 25, 11),
        ("bulyan", 45, 10),
    ],
)
def test_the_largest_f(rule, n, most):
    entry = theory.requirement(rule)
    assert entry.largest_f(n) == most
    assert entry.tolerates(n, most)
    assert not entry.tolerates(n, most + 1)


def test_recommend():
    assert theory.recommend(20, 0).rule == "mean"
    advice = theory.recommend(20, 6)
    assert advice.rule == "mean-around-median"
    tolerated = {option.rule for option in advice.options if option.tolerates}
    assert {"krum", "median", "brsgd"} <= tolerated
    assert not {"mean", "bulyan", "medoid"} & tolerated
    assert theory.recommend(20, 10).rule is None
    assert "at least 21 workers, or f <= 9" in theory.recommend(20, 10).reason
    with pytest.raises(ValueError, match="0 <= f <= n"):
        theory.recommend(5, 6)


@given(st.integers(1, 60), st.data())
def test_a_recommended_rule_tolerates_f(n, data):
    f = data.draw(st.integers(0, n))
    advice = theory.recommend(n, f)
    tolerating = {option.rule for option in advice.options if option.tolerates}
    assert advice.rule in tolerating or (advice.rule is None and not tolerating)
