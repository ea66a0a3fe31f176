"""The rules that other libraries have, against their definitions, and on numbers worked by hand."""

from __future__ import annotations

import functools
import itertools
import math
import re

import numpy as np
import pytest

import horovod_byz as hb
import reference
from cases import DTYPES, random_case
from horovod_byz import rules
from horovod_byz.rules.diameter import closest, coverable
from horovod_byz.rules.spectrum import leading

CASES = 1000
COUNT = np.arange(1.0, 10.0).reshape(3, 3)  # [1, 2, 3], [4, 5, 6], [7, 8, 9]
LOW = [2.5, 3.5, 4.5]  # the mean of its first two rows

# by name: the rule for f and n, and the reference of the same
RULES = {
    "CGE": (lambda f, n: hb.CGE(f), lambda rows, f: reference.cge(rows, f)),
    "NormBoundedMean": (
        lambda f, n: hb.NormBoundedMean(factor=1.5),
        lambda rows, f: reference.norm_bounded_mean(rows, 1.5),
    ),
    "NormBoundedMean, weights": (
        lambda f, n: hb.NormBoundedMean(weights=tuple(range(n)) if n > 1 else (1,), factor=0.7),
        lambda rows, f: reference.norm_bounded_mean(rows, 0.7, range(len(rows)) if len(rows) > 1 else (1,)),
    ),
    "MDA": (lambda f, n: hb.MDA(f), reference.mda),
    "SMEA": (lambda f, n: hb.SMEA(f), reference.smea),
    "MoNNA": (
        lambda f, n: hb.MoNNA(f, pivot=n // 2),
        lambda rows, f: reference.monna(rows, f, len(rows) // 2),
    ),
    "CAF": (lambda f, n: hb.CAF(f), reference.caf),
    "DnC": (lambda f, n: hb.DnC(f), reference.dnc),
    "DnC, one row each": (
        lambda f, n: hb.DnC(f, c=1 / max(f, 1), iterations=max(f, 1)),
        lambda rows, f: reference.dnc(rows, f, 1 / max(f, 1), max(f, 1)),
    ),
}


@functools.cache
def cases():
    """Small ones, of all kinds: ties, duplicates, NaN, Inf and 1e30, in both dtypes."""
    return [
        random_case(seed, lambda f: 2 * f + 1, DTYPES[seed % 2], most_rows=8, most_coordinates=12)
        for seed in range(CASES)
    ]


# CAF rounds its coefficients to 2^-30 in each pass.
SLACK = {"CAF": 1e-7}


def differs(value, expected, case, slack=0.0):
    """By more than rounding of the values that were summed: of the honest rows, or of what won."""
    honest = np.delete(case.rows, case.bad, axis=0).astype(np.float64)
    scale = np.maximum(np.abs(honest).max(initial=0.0), np.abs(expected))
    bound = (64 * np.finfo(case.rows.dtype).eps + slack) * scale + np.finfo(case.rows.dtype).tiny
    return not (np.isfinite(value).all() and np.all(np.abs(value - expected) <= bound))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_equals_its_definition(name):
    make, yardstick = RULES[name]
    wrong = []
    for case in cases():
        before = case.rows.copy()
        value = make(case.f, len(case.rows))(case.rows)
        np.testing.assert_array_equal(case.rows, before)
        assert value.dtype == case.rows.dtype
        expected = yardstick(case.rows, case.f)
        if differs(value, expected, case, SLACK.get(name, 0.0)):
            wrong.append((case, value, expected))
    assert not wrong, f"{len(wrong)} cases differ, first: {wrong[0]}"


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        # Norms 14, 77, 194 squared: the first two rows are the shortest.
        (hb.CGE(f=1), LOW),
        # Squared distances 27, 108, 27: of the two pairs with 27, the first.
        (hb.MDA(f=1), LOW),
        (hb.SMEA(f=1), LOW),
        (hb.MoNNA(f=1), LOW),
        (hb.MoNNA(f=1, pivot=1), LOW),
        (hb.MoNNA(f=1, pivot=2), [5.5, 6.5, 7.5]),
        # The mean has the eigenvalue (27 + 0 + 27) / 3 = 18; both ends lose all weight, and 1 is n - 2f.
        (hb.CAF(f=1), [4.0, 5.0, 6.0]),
        # Squared projections 27, 0, 27: of the ends the lowest row stays.
        (hb.DnC(f=1), LOW),
        (hb.DnC(f=1, c=2), [4.0, 5.0, 6.0]),
        # Longer than the median norm, sqrt(77), is the last row alone.
        (
            hb.NormBoundedMean(factor=1.0),
            (COUNT[0] + COUNT[1] + COUNT[2] * math.sqrt(77 / 194)) / 3,
        ),
        (hb.NormBoundedMean(weights=(1, 1, 2)), [4.75, 5.75, 6.75]),
        # 1/2 is over the cap; the others share 0.6 by 1 : 1.
        (hb.NormBoundedMean(weights=(1, 1, 2), cap=0.4), [4.3, 5.3, 6.3]),
    ],
    ids=repr,
)
def test_three_rows_by_hand(rule, value):
    np.testing.assert_allclose(rule(COUNT), value, rtol=1e-12)
    assert rules.as_rule(rules.as_rule(rule)) is rule


def test_the_names_on_the_command_line():
    assert rules.as_rule("mda:f=2") == hb.MDA(f=2)
    assert rules.as_rule("monna:f=2,pivot=3") == hb.MoNNA(f=2, pivot=3)
    assert rules.as_rule("dnc:f=2,c=0.5,iterations=2") == hb.DnC(f=2, c=0.5, iterations=2)
    assert rules.as_rule("norm-bounded-mean:factor=1,cap=0.5") == hb.NormBoundedMean(factor=1.0, cap=0.5)
    assert {"cge", "smea", "caf"} <= set(rules.names())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: hb.MDA(f=2)(COUNT), "MDA(f=2) needs n > 2f = 4 rows, got n = 3: use f <= 1 or at least 5"),
        (lambda: hb.MDA(f=31).check(100), "MDA(f=31) would search for too long: use f <= 30, or"),
        (lambda: hb.SMEA(f=9).check(45), "886163135 subsets of n = 45 rows, more than 50000: use f <= 3, or"),
        (lambda: hb.MoNNA(f=1, pivot=3)(COUNT), "beyond the last of n = 3 rows: use pivot <= 2"),
        (lambda: hb.MoNNA(f=1, pivot=-1), "MoNNA: pivot must be >= 0, got -1"),
        (
            lambda: hb.DnC(f=1, iterations=3)(COUNT),
            "leaves out 3 times 1 rows, got n = 3: use fewer iterations",
        ),
        (lambda: hb.DnC(f=1, c=0), "DnC: c must be a finite number over 0, got 0"),
        (lambda: hb.DnC(f=1, c="1"), "DnC: c must be a number over 0, got '1'"),
        (lambda: hb.DnC(f=1, iterations=0), "DnC: iterations must be >= 1, got 0"),
        (lambda: hb.NormBoundedMean(factor=0), "factor must be a finite number over 0, got 0"),
        (lambda: hb.NormBoundedMean(factor=math.inf), "factor must be a finite number over 0, got inf"),
        (lambda: hb.NormBoundedMean(cap=1.5), "cap must be a finite number over 0 and at most 1, got 1.5"),
        (lambda: hb.NormBoundedMean(weights="12"), "weights must be numbers, one per worker, got '12'"),
        (lambda: hb.NormBoundedMean(weights=(1, -1)), "weights must be finite and >= 0, got -1 for worker 1"),
        (lambda: hb.NormBoundedMean(weights=(1, None)), "weights must be numbers, got None for worker 1"),
        (lambda: hb.NormBoundedMean(weights=(1, 2))(COUNT), "has 2 weights, got n = 3 rows: give one weight"),
    ],
)
def test_errors_name_the_remedy(make, words):
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        make()


@pytest.mark.parametrize("seed", range(30))
def test_the_search_for_the_least_diameter_is_exact(seed):
    """On grids, where many pairs tie, and on a line, where the search eats paths and rings."""
    rng = np.random.default_rng(seed)
    n, size = 9, int(rng.integers(1, 10))
    points = rng.integers(0, 4, size=(n, 1 + seed % 3))
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=2).astype(float)
    subsets = list(itertools.combinations(range(n), size))
    best = min(subsets, key=lambda chosen: reference.diameter(distances, chosen))
    assert closest(distances, size).tolist() == list(best)


def test_the_smallest_cover_of_pairs_is_found():
    """On sparse graphs too, where the row with the most pairs need not be in any smallest cover."""
    rng = np.random.default_rng(0)
    for _ in range(400):
        n = 11
        pairs = [
            pair for pair in itertools.combinations(range(n), 2) if rng.random() < rng.choice([0.2, 0.3, 0.5])
        ]
        apart = [sum(1 << (set(pair) - {row}).pop() for pair in pairs if row in pair) for row in range(n)]
        sets = np.arange(1 << n)
        meets = np.ones(1 << n, bool)
        for a, b in pairs:
            meets &= ((sets >> a) | (sets >> b)) & 1 == 1
        least = min(int(chosen).bit_count() for chosen in sets[meets])
        assert coverable(apart, (1 << n) - 1, least)
        assert not coverable(apart, (1 << n) - 1, least - 1)


def test_the_least_diameter_of_many_rows():
    """n = 45, f = 9, two clusters and rows between: a subset at least as tight as the planted one."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(45, 30))
    points[rng.permutation(45)[:9]] *= 3
    chosen = closest(distances := reference.squared_distances(points), 36)
    planted = np.argsort((points**2).sum(axis=1))[:36]
    assert len(set(chosen.tolist())) == 36
    assert reference.diameter(distances, chosen) <= reference.diameter(distances, planted)


def test_the_leading_direction_of_a_square_is_that_of_the_first_row():
    """Its eigenvalue is double, so any direction leads: none may depend on what LAPACK returns."""
    square = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for rows in (square, square @ np.array([[0.6, 0.8], [-0.8, 0.6]]), 1e20 * square):
        value, squares = leading(reference.squared_distances(rows), np.full(4, 0.25))
        scale = rows[0] @ rows[0]
        np.testing.assert_allclose(value / scale, 0.5)
        np.testing.assert_allclose(squares / scale, [1, 0, 1, 0], atol=1e-9)


def test_rows_that_do_not_count_have_no_part_in_the_leading_direction():
    rows = np.array([[1.0], [2.0], [4.0], [1e30]])
    value, squares = leading(reference.squared_distances(rows), np.array([0.5, 0.25, 0.25, 0.0]))
    np.testing.assert_allclose([value, *squares], [1.5, 1.0, 0.0, 4.0, 0.0], atol=1e-12)


def test_dnc_needs_an_iteration_for_each_direction():
    rows = np.random.default_rng(0).normal(size=(15, 40))
    rows[3, 0], rows[8, 1] = 1e9, 1e5
    assert np.abs(hb.DnC(f=2, c=0.5)(rows)).max() > 1e3
    assert np.abs(hb.DnC(f=2, c=0.5, iterations=2)(rows)).max() < 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_the_next_row_takes_the_place_of_a_pivot_that_is_out(bad):
    rows = np.random.default_rng(1).normal(size=(7, 30))
    rows[4] = bad
    expected = hb.MoNNA(f=1, pivot=4)(np.delete(rows, 4, axis=0))  # row 5, which stands there now
    np.testing.assert_array_equal(hb.MoNNA(f=2, pivot=4)(rows), expected)
    rows[6], rows[4] = bad, rows[5]
    expected = hb.MoNNA(f=1, pivot=0)(rows[:6])
    np.testing.assert_array_equal(hb.MoNNA(f=2, pivot=6)(rows), expected)


def test_excluded_workers_take_their_options_along():
    rows = np.random.default_rng(1).normal(size=(7, 30))
    others = np.delete(rows, [1, 4], axis=0)
    for rule, rest in [
        (hb.MoNNA(f=1, pivot=5), hb.MoNNA(f=1, pivot=3)),
        (hb.MoNNA(f=1, pivot=4), hb.MoNNA(f=1, pivot=3)),
        (hb.NormBoundedMean(weights=(1, 2, 3, 4, 5, 6, 7)), hb.NormBoundedMean(weights=(1, 3, 4, 6, 7))),
        (hb.CAF(f=1), hb.CAF(f=1)),
    ]:
        np.testing.assert_array_equal(rules.excluding(rule, [1, 4])(rows), rest(others))


def test_a_cap_holds_for_every_worker():
    rows = np.eye(5)
    shares = hb.NormBoundedMean(weights=(50, 30, 10, 6, 4), cap=0.3)(rows)
    np.testing.assert_allclose(shares, [0.3, 0.3, 0.2, 0.12, 0.08])
    np.testing.assert_allclose(
        hb.NormBoundedMean(weights=(50, 30, 10, 0, 0), cap=0.1)(rows), [1 / 3] * 3 + [0, 0]
    )
    np.testing.assert_allclose(
        hb.NormBoundedMean(weights=(1e308, 1e308, 0, 0, 0))(rows), [0.5, 0.5, 0.0, 0.0, 0.0]
    )


def test_clipping_bounds_what_one_row_does():
    rows = np.random.default_rng(2).normal(size=(10, 50))
    clean, attacked = hb.NormBoundedMean(), rows.copy()
    attacked[3] = 1e30
    median = np.median(np.linalg.norm(rows, axis=1))
    assert np.linalg.norm(clean(attacked) - clean(rows)) <= 0.1 * 3.2 * median
