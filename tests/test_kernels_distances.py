"""Distances and inner products against extended precision, at every instruction set."""

import itertools

import numpy as np
import pytest

from horovod_byz.kernels import coordinate, distances, linear
from horovod_byz.kernels.rows import Rows
from kernel_cases import (
    DTYPES,
    assert_bits,
    denormals,
    duplicates,
    huge,
    normal,
    reference_median,
    with_nonfinite,
)

pytestmark = pytest.mark.usefixtures("level")


def reference_squared(x):
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble)
        result = np.array([[np.sum((a - b) ** 2) for b in wide] for a in wide])
    result[np.isnan(result)] = np.inf
    np.fill_diagonal(result, 0)
    return result.astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, duplicates, with_nonfinite])
@pytest.mark.parametrize("d", [1, 7, 17, 255, 300, 4097, 10_000])
def test_squared(values, dtype, d):
    for n in [1, 2, 3, 4, 5, 6, 7, 10, 11, 13] if d < 4000 else [2, 9]:
        x = values(np.random.default_rng(n), n, d, dtype)
        got = distances.squared(Rows(x))
        np.testing.assert_allclose(got, reference_squared(x), rtol=1e-6)
        assert_bits(got, got.T.copy())


def test_squared_of_many_rows():
    x = normal(np.random.default_rng(10), 70, 600, np.float32)
    np.testing.assert_allclose(distances.squared(Rows(x)), reference_squared(x), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-20, 1e19, 1e30])
def test_squares_that_float32_cannot_hold(scale):
    x = (normal(np.random.default_rng(11), 5, 5000, np.float64) * scale).astype(np.float32)
    x[3] = x[2]
    np.testing.assert_allclose(distances.squared(Rows(x)), reference_squared(x), rtol=1e-6)
    np.testing.assert_allclose(distances.to_point(Rows(x), x[0].copy()), reference_squared(x)[0], rtol=1e-6)
    centred = x.astype(np.float64) - np.median(x, axis=0).astype(np.float64)
    wanted, size = centred @ centred.T, np.sqrt(np.outer(*[np.sum(centred**2, axis=1)] * 2))
    assert np.all(np.abs(distances.gram(Rows(x)) - wanted) <= 1e-6 * size)


def test_distances_survive_a_common_offset():
    rng = np.random.default_rng(12)
    x = (rng.standard_normal(20_000) + 1e-4 * rng.standard_normal((8, 20_000))).astype(np.float32)
    np.testing.assert_allclose(distances.squared(Rows(x)), reference_squared(x), rtol=1e-6)


def test_one_huge_row_does_not_disturb_the_others():
    x = normal(np.random.default_rng(13), 7, 9000, np.float32)
    x[4] = 1e30
    np.testing.assert_allclose(distances.squared(Rows(x)), reference_squared(x), rtol=1e-6)
    gram, others = distances.gram(Rows(x)), [0, 1, 2, 3, 5, 6]
    centred = x.astype(np.float64) - np.median(x, axis=0)
    wanted = centred[others] @ centred[others].T
    np.testing.assert_allclose(gram[np.ix_(others, others)], wanted, atol=1e-6 * wanted.max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 17, 256, 4100, 9000])
def test_gram(dtype, d):
    for n in [1, 2, 3, 5, 6, 12, 45]:
        x = normal(np.random.default_rng(n), n, d, dtype)
        centred = (x - reference_median(x)).astype(np.float64)
        wanted = centred @ centred.T
        np.testing.assert_allclose(distances.gram(Rows(x)), wanted, atol=1e-6 * np.abs(wanted).max())


def test_products_are_added_with_one_rounding():
    """2^70 + 2^47 + (2^46 - 1) lies just below the middle of two floats: via float64 it would round up."""
    x = np.zeros((7, 32), np.float32)  # five zero rows: the median is 0
    x[0, [0, 16]] = 2**23 + 1, 2**23 + 1  # columns 0 and 16 go to the same lane
    x[1, [0, 16]] = 2**47, 2**23 - 1
    assert distances.gram(Rows(x))[0, 1] == 2**70 + 2**47
    x[1, 16] = -(2.0**23) + 1
    assert distances.gram(Rows(x))[0, 1] == 2**70 + 2**47


def test_gram_marks_rows_that_are_not_finite():
    x = normal(np.random.default_rng(14), 6, 5000, np.float32)
    clean_gram = distances.gram(Rows(x))
    x[2, 4999] = np.nan
    gram = distances.gram(Rows(x))
    assert np.isnan(gram[2]).all()
    assert np.isnan(gram[:, 2]).all()
    rest = np.delete(np.arange(6), 2)
    np.testing.assert_allclose(gram[np.ix_(rest, rest)], clean_gram[np.ix_(rest, rest)], atol=5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, duplicates, with_nonfinite])
def test_to_point(values, dtype):
    for n, d in itertools.product([1, 3, 16], [1, 17, 300, 5000]):
        rng = np.random.default_rng(n)
        x, point = values(rng, n, d, dtype), normal(rng, 1, d, dtype)[0]
        with np.errstate(all="ignore"):
            wanted = np.sum((x.astype(np.longdouble) - point) ** 2, axis=1).astype(np.float64)
        wanted[np.isnan(wanted)] = np.inf
        np.testing.assert_allclose(distances.to_point(Rows(x), point), wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, duplicates, huge, denormals, with_nonfinite])
def test_distances_and_norms_in_one_reading_have_the_bits_of_two(values, dtype):
    for n, d in itertools.product([1, 3, 16], [0, 1, 17, 300, 5000]):
        rng = np.random.default_rng(n)
        x, point = values(rng, n, d, dtype), values(rng, 1, d, dtype)[0]
        got = distances.to_point_and_norms(Rows(x), point, threads=2)
        both, origin = Rows([*x, point]), np.zeros(d, dtype)
        assert_bits(got[0, :-1].copy(), distances.to_point(Rows(x), point))
        assert got[0, -1] == 0
        assert_bits(got[1].copy(), distances.to_point(both, origin))


RULES = {
    "median": lambda rows, out: coordinate.median(rows, out),
    "trimmed_mean": lambda rows, out: coordinate.trimmed_mean(rows, out, 1),
    "mean_around_median": lambda rows, out: coordinate.mean_around_median(rows, out, 1),
    "sign_majority": lambda rows, out: coordinate.sign_majority(rows, out),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, huge, with_nonfinite])
def test_a_rule_and_its_distances_have_the_bits_of_one_after_the_other(values, dtype):
    for n, d, threads in itertools.product([3, 16], [1, 300, 9000], [1, 3]):
        x = values(np.random.default_rng(n), n, d, dtype)
        out, wanted = np.full(d, 7, dtype), np.empty(d, dtype)
        weights = {"all": np.full(n, 1 / n), "some": np.eye(n)[1] + np.eye(n)[2], "one": np.eye(n)[1]}
        for name, rule in RULES.items():
            rule(Rows(x), wanted)
            f = 1 if "mean" in name else 0
            got = distances.combined(Rows(x), (name, f), out, threads)
            assert_bits(out, wanted)
            assert_bits(got, distances.to_point_and_norms(Rows(x), wanted))
        for weight in weights.values():
            linear.weighted_sum(Rows(x), weight, wanted)
            got = distances.combined(Rows(x), weight, out, threads)
            assert_bits(out, wanted)
            assert_bits(got, distances.to_point_and_norms(Rows(x), wanted))


@pytest.mark.parametrize(
    "rule",
    [("mode", 0), ("median", 1), ("trimmed_mean", 2), ("trimmed_mean", -1), np.ones(3), np.full(4, np.nan)],
)
def test_a_rule_that_does_not_fit_writes_nothing(rule):
    x, out = np.ones((4, 10), np.float32), np.full(10, 7, np.float32)
    with pytest.raises(ValueError, match=r"rule must|needs 0 <= f|weights must"):
        distances.combined(Rows(x), rule, out)
    assert (out == 7).all()
