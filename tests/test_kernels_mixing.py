"""Mixtures of rows by their definition, and rules over them that never store them."""

from __future__ import annotations

import re

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.kernels import coordinate
from horovod_byz.kernels.mixing import Mixing
from horovod_byz.kernels.rows import Rows
from kernel_cases import DTYPES, bits, call, half_of_them, normal

pytestmark = pytest.mark.usefixtures("level")

RULES = [
    ("median", lambda f: 0),
    ("trimmed_mean", lambda f: f),
    ("mean_around_median", lambda f: f),
    ("phocas", lambda f: f),
    ("sign_majority", lambda f: 0),
]


def mixed(weights, x, threads=1):
    mixing = Mixing(weights)
    out = np.full((mixing.k, x.shape[1]), 7, x.dtype)
    mixing.mixtures(Rows(x), out, threads)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "n"), [(1, 1), (2, 3), (5, 4), (4, 5), (8, 9), (45, 45), (7, 100), (70, 66)])
def test_mixtures_are_weighted_sums(dtype, k, n):
    rng = np.random.default_rng(n)
    for d in (0, 1, 15, 33, 64, 300):
        x = normal(rng, n, d, dtype)
        weights = half_of_them(n, max(k, 2))[-k:]
        wanted = weights @ x.astype(np.float64)
        bound = 16 * np.finfo(dtype).eps * np.abs(x).max(initial=0.0)
        assert np.abs(mixed(weights, x) - wanted).max(initial=0.0) <= bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "dropped"), RULES)
def test_a_rule_over_mixtures_has_the_bits_that_it_has_on_them(dtype, name, dropped):
    rng = np.random.default_rng(0)
    for n, k in ((5, 3), (12, 12), (45, 45), (70, 68)):
        x, weights, f = normal(rng, n, 1000, dtype), half_of_them(n, k), dropped((k - 1) // 3)
        mixing, out = Mixing(weights), np.empty(1000, dtype)
        for threads in (1, 2):
            mixing.rule(Rows(x), (name, f), out, threads)
            rows, rest = Rows(mixed(weights, x)), (f,) if f else ()
            if name in ("trimmed_mean", "mean_around_median", "phocas"):
                rest = (f,)
            np.testing.assert_array_equal(bits(out), bits(call(getattr(coordinate, name), rows, *rest)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_numbers_are_exact(dtype):
    """The mean of three equal rows is that row, though 1/3 is rounded."""
    x = np.repeat(np.arange(1, 200, dtype=dtype)[None], 9, axis=0)
    np.testing.assert_allclose(mixed(np.full((2, 9), 1 / 3) * (np.arange(9) % 3 == 0), x), x[:2], rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_that_is_in_no_mixture_is_not_read(dtype):
    x = normal(np.random.default_rng(1), 6, 50, dtype)
    weights = np.array([[0.5, 0.5, 0, 0, 0, 0], [0, 1 / 3, 0, 1 / 3, 1 / 3, 0]])
    clean = mixed(weights, x)
    x[2], x[5] = np.nan, np.inf
    np.testing.assert_array_equal(mixed(weights, x), clean)
    x[0, 3] = -np.inf  # is in the first alone, although the others are in the same group
    spoilt = mixed(weights, x)
    assert spoilt[0, 3] == 0
    np.testing.assert_array_equal(np.delete(spoilt, 3, axis=1), np.delete(clean, 3, axis=1))
    np.testing.assert_array_equal(spoilt[1], clean[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_beyond_the_largest_number_are_taken_of_smaller_ones(dtype):
    """With the bits that they have at another scale, in their column alone."""
    x = np.abs(normal(np.random.default_rng(2), 40, 100, dtype)) + 1
    weights = half_of_them(40, 8)[2:]
    small, power = mixed(weights, x), np.finfo(dtype).maxexp - 4
    large = x.copy()
    large[:, ::7] = np.ldexp(x[:, ::7], power)
    got = mixed(weights, large)
    np.testing.assert_array_equal(got[:, ::7], np.ldexp(small[:, ::7], power))
    others = np.arange(100) % 7 != 0
    np.testing.assert_array_equal(got[:, others], small[:, others])


def test_which_weights_fit():
    assert Mixing.fits(np.array([[0.5, 0.5, 0], [0, 0, 1.0], [0, 0, 0]]))
    assert not Mixing.fits(np.array([[0.5, 0.25]]))
    assert not Mixing.fits(np.array([[0.5, -0.5]]))
    assert not Mixing.fits(np.array([[np.nan, 0.5]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m, rows, out: Mixing(np.array([[0.5, 0.25]])), "equal where they are not 0"),
        (lambda m, rows, out: Mixing(np.zeros((0, 3))), "equal where they are not 0"),
        (lambda m, rows, out: Mixing([[0.5, 0.5]]), "weights must be a float64 array of shape (k, n)"),
        (
            lambda m, rows, out: m.mixtures(Rows(np.ones((2, 4))), out),
            "rows must be the 3 that are mixed, got 2",
        ),
        (
            lambda m, rows, out: m.mixtures(rows, out[:1]),
            "out must be contiguous, of shape (2, 4), got (1, 4)",
        ),
        (lambda m, rows, out: m.mixtures(rows, out.astype(np.float32)), "must have the dtype of the rows"),
        (lambda m, rows, out: m.mixtures(rows, out, 0), "threads must be at least 1"),
        (lambda m, rows, out: m.rule(rows, ("mean", 0), out[0]), "rule must be one of median, trimmed_mean"),
        (lambda m, rows, out: m.rule(rows, ("phocas", 1), out[0]), "phocas of 2 mixtures needs 0 <= f <= 0"),
        (lambda m, rows, out: m.rule(rows, ("median", 1), out[0]), "median of 2 mixtures needs 0 <= f <= 0"),
    ],
)
def test_bad_arguments(make, words):
    mixing = Mixing(np.array([[0.5, 0.5, 0], [0, 0.5, 0.5]]))
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        make(mixing, Rows(np.ones((3, 4))), np.ones((2, 4)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rule",
    [hb.Median(), hb.TrimmedMean(3), hb.MeanAroundMedian(3), hb.Phocas(3), hb.SignMajority()],
    ids=repr,
)
@pytest.mark.parametrize("stage", [hb.NNM(f=3), hb.Bucketing(s=2)], ids=repr)
def test_a_pipeline_has_the_bits_of_the_rule_on_the_mixtures(dtype, rule, stage):
    x = normal(np.random.default_rng(3), 17, 5000, dtype)
    np.testing.assert_array_equal(hb.Pipeline(stage, rule)(x), rule(stage(x)))
