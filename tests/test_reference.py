"""The reference itself, on numbers worked by hand where mean, median and Krum differ."""

import numpy as np
import pytest

import reference

LINE = np.array([[0.0], [1.0], [2.5], [3.0], [10.0]])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (reference.mean(LINE), 3.3),
        (reference.median(LINE), 2.5),
        (reference.trimmed_mean(LINE, 1), (1 + 2.5 + 3) / 3),
        (reference.mean_around_median(LINE, 1), (0 + 1 + 2.5 + 3) / 4),
        (reference.krum(LINE, 1), 2.5),
        (reference.multi_krum(LINE, 1), (1.0 + 2.5) / 2),
        (reference.medoid(LINE), 2.5),
        (reference.geometric_median(LINE), 2.5),
    ],
)
def test_rules_on_a_line(value, expected):
    np.testing.assert_allclose(value, [expected], rtol=1e-12)


def test_krum_scores_by_hand():
    # f = 1: the two nearest others. Row 1: 1.0 to row 0, 2.25 to row 2.
    scores = reference.krum_scores(reference.squared_distances(LINE), 1)
    np.testing.assert_allclose(scores, [1 + 6.25, 1 + 2.25, 0.25 + 2.25, 0.25 + 4.0, 49 + 56.25])


def test_even_median_is_the_mean_of_the_middle_two():
    np.testing.assert_array_equal(reference.median(np.array([[1.0], [2.0], [4.0], [9.0]])), [3.0])


def test_ties_around_the_median_go_to_the_lower_value():
    np.testing.assert_array_equal(reference.mean_around_median(np.array([[-1.0], [0.0], [1.0]]), 1), [-0.5])


def test_bulyan_by_hand():
    # theta = 5: Krum leaves out the two ends that support each other least, then 3 nearest the median.
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [1e9]])
    chosen = reference.bulyan(rows, 1)
    np.testing.assert_array_equal(chosen, [2.0])


def test_geometric_median_of_a_triangle_is_its_fermat_point():
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    np.testing.assert_allclose(reference.geometric_median(rows), [0.5, np.sqrt(3) / 6], atol=1e-9)


def test_brsgd_scores_sides_by_majority():
    # Column means 0.225 and 0.225; three rows sit above, the fourth below: C2 keeps two of the three.
    rows = np.array([[1.0, 1.0], [1.1, 1.1], [0.8, 0.8], [-2.0, -2.0]])
    np.testing.assert_allclose(reference.brsgd(rows), [1.05, 1.05])


@pytest.mark.parametrize("rule", [reference.mean, reference.median, reference.medoid, reference.brsgd])
def test_nothing_finite_gives_zero(rule):
    rows = np.full((3, 2), np.nan)
    np.testing.assert_array_equal(rule(rows), [0.0, 0.0])
