"""Constants and theorems of Xie et al. 2018 and 2019: every number of them that needs no aggregation rule."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from horovod_byz import theory
from horovod_byz.theory import (
    bias,
    empires,
    examples,
    resilience,
)

# resilience constants

ETAS = [
    (20, 6, 14.4222, 13.0958, 3.7417, 11.8322),
    (20, 8, 28.4253, 20.7846, 3.4641, 10.9545),
    (20, 0, 6.3246, 8.9443, 4.4721, 14.1421),
    (25, 11, 58.6345, 34.9221, 3.7417, 11.8322),
    (25, 12, None, 93.7443, 3.6056, 11.4018),
    (45, 5, 12.2722, 14.4561, 6.3246, 20.0),
    (15, 2, 6.4464, 8.5222, 3.6056, 11.4018),
]


@pytest.mark.parametrize(("n", "f", "krum", "geometric", "median", "around"), ETAS)
def test_eta_table(n, f, krum, geometric, median, around):
    expected = {"krum": krum, "geometric-median": geometric, "median": median, "mean-around-median": around}
    assert theory.etas(n, f) == pytest.approx(expected, abs=5e-5)


@given(st.integers(3, 200), st.data())
def test_eta_krum_equals_its_other_form(n, data):
    f = data.draw(st.integers(0, (n - 3) // 2))
    other = math.sqrt(2 * (n - f + f * (n + f * (n - f - 2) - 2) / (n - 2 * f - 2)))
    assert resilience.eta_krum(n, f) == pytest.approx(other)


def test_without_honest_majority_no_theorem_applies():
    assert set(theory.etas(20, 10).values()) == {None}


def test_resilience_angle():
    eta = resilience.eta_median(20, 6)
    assert resilience.sin_alpha(eta, 100, 0.01, 1.0) == pytest.approx(0.37417, abs=1e-5)
    assert theory.resilience_angle(eta, 100, 0.01, 1.0) == pytest.approx(math.asin(0.3741657))
    assert theory.resilience_angle(eta, 100, 1.0, 1.0) is None
    assert theory.resilience_angle(resilience.eta_krum(25, 12), 100, 0.0, 1.0) is None
    with pytest.raises(ValueError, match="norm"):
        theory.resilience_angle(eta, 100, 0.01, 0.0)


# lemmas


def test_lemma_3_constants():
    assert resilience.geometric_median_factor(20, 6) == 3.5
    assert resilience.geometric_median_bound(20, 6, 2.0) == 7.0
    assert resilience.geometric_median_bound(20, 6, 2.0, epsilon=1e-6, objective=1e20) == pytest.approx(
        1.25e13
    )
    with pytest.raises(ValueError, match="use f <= 9"):
        resilience.geometric_median_factor(20, 10)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=15), st.data())
def test_lemma_4_and_5(honest, data):
    """Any minority of Byzantine values leaves the median among the honest ones, the mean around it nearby."""
    f = data.draw(st.integers(0, len(honest) - 1))
    values = np.array(honest + data.draw(st.lists(st.floats(-1e9, 1e9), min_size=f, max_size=f)))
    median = float(np.median(values))
    low, high = resilience.median_interval(honest)
    assert low <= median <= high
    nearest = values[np.argsort(np.abs(values - median), kind="stable")[: len(honest)]]
    radius = resilience.mean_around_median_radius(honest, median)
    assert abs(nearest.mean() - median) <= radius * (1 + 1e-9) + 1e-9


def test_second_moment_bounds():
    assert resilience.second_moment_bound("median", 20, 6, 10, 2.0) == pytest.approx(14 * 10 * 4)
    assert resilience.second_moment_bound("mean-around-median", 20, 6, 10, 2.0) == pytest.approx(140 * 10 * 4)
    assert resilience.second_moment_bound("krum", 25, 12, 10, 2.0) is None
    with pytest.raises(ValueError, match="choose one of krum"):
        resilience.second_moment_bound("mean", 20, 6, 10, 2.0)


# Theorem 1 of Fall of Empires


def test_median_threshold():
    assert empires.median_threshold(25, 12) == pytest.approx(0.2887, abs=5e-5)
    assert empires.median_break_point(25, 12) == pytest.approx(1.6677, abs=5e-4)
    with pytest.raises(ValueError, match="use n = 23"):
        empires.median_threshold(25, 11)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_minimum_bound_holds_for_every_sample(values):
    assert min(values) <= empires.minimum_bound(np.array(values)) + 1e-9


def test_population_deviation_does_not_suffice():
    """g = 0.1 is below the threshold 0.2887, and still the smallest of 13 has a positive mean."""
    assert empires.median_threshold(25, 12) > 0.1
    assert empires.two_point_minimum(0.1, 1e-4, 13) == pytest.approx(0.09, abs=1e-4)
    step = math.sqrt(1e-4 / (1 - 1e-4))
    low, high = 0.1 - step, 0.1 + step * (1 - 1e-4) / 1e-4
    mean = (1 - 1e-4) * low + 1e-4 * high
    assert mean == pytest.approx(0.1)
    assert (1 - 1e-4) * (low - mean) ** 2 + 1e-4 * (high - mean) ** 2 == pytest.approx(1.0)


# Theorem 2 of Fall of Empires


@pytest.mark.parametrize(("epsilon", "required"), [(0.1, 884), (0.2, 244), (0.5, 52), (1, 20), (2, 10)])
def test_krum_required_honest(epsilon, required):
    assert empires.krum_required_honest(epsilon) == pytest.approx(required)


def test_krum_smallest_epsilon():
    assert empires.krum_smallest_epsilon(14) == pytest.approx(1.3798, abs=5e-5)
    assert empires.krum_required_honest(empires.krum_smallest_epsilon(14)) == pytest.approx(14)
    assert empires.krum_required_honest(1.45) == pytest.approx(13.32, abs=5e-3)
    with pytest.raises(ValueError, match="needs n - f > 4"):
        empires.krum_smallest_epsilon(4)


def test_simplex_witness_satisfies_every_hypothesis():
    rows = examples.simplex_witness(1.45)
    honest = rows[11:]
    assert rows.shape == (25, 14)
    assert np.allclose(honest.mean(axis=0), np.eye(14)[0])
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(honest, 2)]
    assert np.allclose(distances, 1.4676, atol=5e-5)
    check = empires.krum_attack(honest, 11, 1.45)
    assert check.applies
    assert check.reasons == ()
    assert check.byzantine_bound == pytest.approx(23.805)
    assert check.honest_bound == pytest.approx(25.23)


@pytest.mark.parametrize(("epsilon", "why"), [(0.1, "884"), (1.0, "does not exceed 20.00"), (3.0, "beta")])
def test_simplex_outside_the_theorem(epsilon, why):
    check = empires.krum_attack(examples.simplex_witness(epsilon)[11:], 11, epsilon)
    assert not check.applies
    assert any(why in reason for reason in check.reasons)


def test_other_hypotheses_are_named():
    honest = examples.simplex_witness(1.45)[11:]
    assert "not 3" in empires.krum_attack(honest, 10, 1.45).reasons[0]
    honest[:, 0] = 0.5
    assert any("exceeds |vbar|^2" in reason for reason in empires.krum_attack(honest, 11, 1.45).reasons)


@pytest.mark.parametrize("points", [2, 3, 14])
def test_simplex_is_regular(points):
    vertices = examples.simplex(points, radius=2.0)
    assert np.allclose(vertices.sum(axis=0), 0)
    assert np.allclose(np.linalg.norm(vertices, axis=1), 2)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(vertices, 2)]
    assert np.allclose(distances, 2 * math.sqrt(2 * points / (points - 1)))


def test_toy_examples():
    assert np.mean(examples.toy_median()[:3]) == pytest.approx(0.1)
    assert np.mean(examples.toy_median()[3:]) == pytest.approx(-3)
    assert np.mean(examples.toy_krum()[3:]) == pytest.approx(0.2167, abs=5e-5)


# bias and variance of the median


@pytest.mark.parametrize(
    ("n", "f", "expected"),
    [
        (20, 2, -0.138),
        (20, 5, -0.425),
        (20, 6, -0.559),
        (20, 9, -1.324),
        (25, 12, -1.668),
        (20, 0, 0),
        (7, 0, 0),
    ],
)
def test_median_bias(n, f, expected):
    assert bias.median_bias(n, f) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(("n", "f", "expected"), [(20, 6, 0.474), (20, 9, 1.42), (25, 11, 1.27)])
def test_geometric_median_bias(n, f, expected):
    assert bias.geometric_median_bias(n, f) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize(("n", "expected"), [(20, 1.4687), (25, 1.5437), (45, 1.5558), (1, 1.0), (2, 1.0)])
def test_median_variance(n, expected):
    """Exact integrals; simulations of 4 million medians gave 1.467, 1.542, 1.557 (standard error 0.001)."""
    assert bias.median_variance(n) * n == pytest.approx(expected, abs=5e-5)


def test_median_variance_of_three():
    assert bias.median_variance(3) == pytest.approx(1 - math.sqrt(3) / math.pi)


def test_order_statistics():
    assert bias.order_statistic(2, 1) == pytest.approx(-1 / math.sqrt(math.pi))
    assert bias.order_statistic(13, 1) == pytest.approx(-bias.order_statistic(13, 13))
    with pytest.raises(ValueError, match="1 <= k <= 3"):
        bias.order_statistic(3, 4)
    with pytest.raises(ValueError, match="use f <= 9"):
        bias.median_bias(20, 10)
