"""Every rule against the reference, on random cases of every kind, dtype and layout."""

from __future__ import annotations

import numpy as np
import pytest

import horovod_byz as hb
import reference
from cases import DTYPES, layouts, random_case

CASES = 1000
BATCHES = 10


# rule, its reference, and whether the result is one of the values (then it must be equal to the bit)
RULES = {
    "Median": (lambda f: hb.Median(), lambda rows, f: reference.median(rows), True),
    "TrimmedMean": (hb.TrimmedMean, reference.trimmed_mean, False),
    "MeanAroundMedian": (hb.MeanAroundMedian, reference.mean_around_median, False),
    "Phocas": (hb.Phocas, reference.phocas, False),
    "SignMajority": (lambda f: hb.SignMajority(), lambda rows, f: reference.sign_majority(rows), True),
    "Krum": (hb.Krum, reference.krum, True),
    "MultiKrum": (hb.MultiKrum, reference.multi_krum, False),
    "Bulyan": (hb.Bulyan, reference.bulyan, False),
    "Medoid": (lambda f: hb.Medoid(), lambda rows, f: reference.medoid(rows), True),
    "BrSGD": (lambda f: hb.BrSGD(), lambda rows, f: reference.brsgd(rows), False),
}


def least_rows(name):
    """How many rows a case has for so many wild ones; the medoid survives them without a theorem."""
    return hb.Median.min_rows if name == "Medoid" else getattr(hb, name).min_rows


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("name", RULES)
def test_rule_equals_reference(name, batch):
    make, yardstick, exact = RULES[name]
    wrong = []
    for seed in range(batch * CASES // BATCHES, (batch + 1) * CASES // BATCHES):
        case = random_case(seed, least_rows(name), DTYPES[seed % 2], most_coordinates=10_000)
        rule = make(case.f)
        before = case.rows.copy()
        value = rule(case.rows, threads=1 + seed % 2)
        np.testing.assert_array_equal(case.rows, before)
        expected = yardstick(case.rows, case.f)
        if name == "Medoid" and (case.bad or not case.exact):
            expected = nearly_best(value, expected, case)
        if not agree(value, expected, case, exact):
            wrong.append((case, np.abs(value - expected).max()))
    assert not wrong, f"{len(wrong)} cases differ, first: {wrong[0]}"


def agree(value, expected, case, exact):
    """Equal, to the bit where the result is a value of a row, else to rounding of the values summed."""
    assert value.dtype == case.rows.dtype
    assert np.isfinite(value).all()
    if exact:
        return np.array_equal(value.astype(np.float64), expected)
    return np.all(np.abs(value - expected) <= tolerance(case, expected))


def tolerance(case, expected):
    """Eight units in the last place of the values that were summed: the honest ones, or what won."""
    eps = np.finfo(case.rows.dtype).eps
    honest = np.delete(case.rows, case.bad, axis=0).astype(np.float64)
    scale = np.maximum(np.abs(honest).max(axis=0, initial=0.0), np.abs(expected))
    return 8 * eps * scale + np.finfo(case.rows.dtype).tiny


def nearly_best(value, expected, case):
    """The value itself where it is a row whose cost ties with the best up to rounding.

    On a line the two middle rows of an even number cost the same in exact arithmetic.
    """
    rows = case.rows[reference.finite_rows(case.rows)]
    costs = reference.medoid_costs(rows)
    ties = rows[costs <= costs.min() * (1 + 4 * np.finfo(rows.dtype).eps)]
    return value.astype(np.float64) if (ties == value).all(axis=1).any() else expected


def test_agree_sees_a_wrong_value():
    case = random_case(4, hb.Median.min_rows, np.float32)
    right = reference.median(case.rows)
    assert agree(right.astype(np.float32), right, case, exact=True)
    wrong = right.copy()
    wrong[-1] += 1e-3 * max(abs(wrong[-1]), 1)
    assert not agree(wrong.astype(np.float32), right, case, exact=True)
    assert not agree(wrong.astype(np.float32), right, case, exact=False)


def test_mean_equals_reference():
    for seed in range(CASES):
        case = random_case(seed, lambda f: 2 * f + 1, DTYPES[seed % 2])
        value, expected = hb.Mean()(case.rows), reference.mean(case.rows)
        finite = case.rows[reference.finite_rows(case.rows)].astype(np.float64)
        # One rounding to the dtype, and one in float64 for each row that is added.
        relative = np.finfo(case.rows.dtype).eps + len(finite) * np.finfo(np.float64).eps
        rounding = relative * np.abs(finite).max(axis=0, initial=0)
        assert (np.abs(value - expected) <= rounding + np.finfo(case.rows.dtype).tiny).all(), case


@pytest.mark.parametrize("batch", range(BATCHES))
def test_geometric_median_equals_reference(batch):
    for seed in range(batch * 20, (batch + 1) * 20):
        case = random_case(seed, hb.GeometricMedian.min_rows, DTYPES[seed % 2], most_coordinates=500)
        value = hb.GeometricMedian()(case.rows).astype(np.float64)
        assert np.isfinite(value).all()
        rows = case.rows[reference.finite_rows(case.rows)]
        expected = reference.geometric_median(case.rows)
        excess = reference.distance_sum(rows, value) / max(reference.distance_sum(rows, expected), 1e-300) - 1
        assert excess <= 1e-6, (case, excess)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*RULES, "GeometricMedian"])
def test_layout_and_threads_do_not_matter(name, dtype):
    rows = random_case(11, lambda f: 4 * f + 3, dtype).rows
    rule = RULES[name][0](1) if name in RULES else hb.GeometricMedian()
    if name in ("Krum", "MultiKrum", "TrimmedMean", "MeanAroundMedian", "Phocas", "Bulyan"):
        rows = np.vstack([rows, rows + 1, rows - 1])
    expected = rule(rows, threads=1)
    for kind, data in layouts(rows).items():
        for threads in (1, 2, 7):
            np.testing.assert_array_equal(rule(data, threads=threads), expected, err_msg=kind)
