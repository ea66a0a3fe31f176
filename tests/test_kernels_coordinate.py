"""Coordinate-wise kernels and the weighted sum against plain NumPy, at every instruction set."""

import itertools

import numpy as np
import pytest

import reference
from horovod_byz.kernels import coordinate
from horovod_byz.kernels.rows import Rows
from kernel_cases import (
    DTYPES,
    FINITE,
    SMALL,
    WIDTHS,
    assert_bits,
    assert_close,
    call,
    clean,
    denormals,
    duplicates,
    exact_mean,
    huge,
    normal,
    ordered,
    reference_median,
    ties,
    weighted,
    with_nonfinite,
)

pytestmark = pytest.mark.usefixtures("level")


def reference_trimmed(x, f):
    return exact_mean(ordered(x)[f : len(x) - f])


def reference_around(x, f):
    """Scan of the f + 1 windows, in float64: the first one whose farther edge is nearest the median."""
    y, n = ordered(x), len(x)
    k, wide = n - f, ordered(x).astype(np.float64)
    with np.errstate(all="ignore"):
        a, b = wide[(n - 1) // 2], wide[n // 2]
        middle = np.where(np.isinf(a + b), a * 0.5 + b * 0.5, (a + b) * 0.5)
        window = np.zeros(x.shape[1], dtype=int)
        for i in range(f):
            nearer = (np.isnan(wide[i]) & np.signbit(wide[i])) | (middle - wide[i] > wide[k + i] - middle)
            window = np.where((window == i) & nearer, i + 1, window)
    columns = np.arange(x.shape[1])
    return exact_mean(np.stack([y[window + j, columns] for j in range(k)]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [*FINITE, with_nonfinite])
def test_median_of_any_number_of_rows(values, dtype):
    rng = np.random.default_rng(0)
    for n in range(1, 71):
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        assert_bits(call(coordinate.median, Rows(x)), reference_median(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [100, 101, 128, 200, 257])
def test_median_of_many_rows(n, dtype):
    x = with_nonfinite(np.random.default_rng(n), n, 70, dtype)
    assert_bits(call(coordinate.median, Rows(x)), reference_median(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 20])
def test_median_of_any_width(n, dtype):
    x = normal(np.random.default_rng(1), n, 10_000, dtype)
    for d in [*range(1, 140), 1000, 4095, 4096, 4097, 9999, 10_000]:
        assert_bits(call(coordinate.median, Rows(x[:, :d])), reference_median(x[:, :d]))


def test_median_equals_numpy_where_numpy_is_defined():
    x = normal(np.random.default_rng(2), 21, 500, np.float64)
    for n in range(1, 22):
        np.testing.assert_array_equal(call(coordinate.median, Rows(x[:n])), np.median(x[:n], axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [*FINITE, with_nonfinite])
def test_trimmed_mean(values, dtype):
    rng = np.random.default_rng(3)
    for n in SMALL:
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        for f in {0, 1, (n - 1) // 4, (n - 1) // 2} & set(range((n + 1) // 2)):
            kept = ordered(x)[f : n - f]
            scale = np.where(np.isfinite(kept).all(axis=0), np.abs(kept).max(axis=0), 0)
            assert_close(call(coordinate.trimmed_mean, Rows(x), f), reference_trimmed(x, f), scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, ties, duplicates, denormals, with_nonfinite])
def test_mean_around_median(values, dtype):
    rng = np.random.default_rng(4)
    for n in SMALL:
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        for f in {0, 1, (n - 1) // 4, (n - 1) // 2, n // 2, 2 * n // 3, n - 1} & set(range(n)):
            got, wanted = call(coordinate.mean_around_median, Rows(x), f), reference_around(x, f)
            assert_close(got, wanted, np.nanmax(np.where(np.isfinite(x), np.abs(x), 0), axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_around_median_of_huge_values_is_finite(dtype):
    x = huge(np.random.default_rng(5), 9, 300, dtype)
    x[7:] = np.finfo(dtype).max
    assert np.isfinite(call(coordinate.mean_around_median, Rows(x), 4)).all()
    x[:7] = normal(np.random.default_rng(6), 7, 300, dtype)
    assert_close(call(coordinate.mean_around_median, Rows(x), 2), exact_mean(x[:7]), np.full(300, 4.0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, ties, duplicates, denormals, with_nonfinite])
def test_phocas(values, dtype):
    rng = np.random.default_rng(8)
    for n in SMALL:
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        for f in {0, 1, (n - 1) // 4, (n - 1) // 2} & set(range((n + 1) // 2)):
            got, wanted = call(coordinate.phocas, Rows(x), f), reference.phocas(x, f).astype(dtype)
            assert_close(got, wanted, np.nanmax(np.where(np.isfinite(x), np.abs(x), 0), axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_phocas_of_huge_values_is_finite(dtype):
    x = huge(np.random.default_rng(5), 9, 300, dtype)
    x[7:] = np.finfo(dtype).max
    assert np.isfinite(call(coordinate.phocas, Rows(x), 4)).all()
    x[:7] = normal(np.random.default_rng(6), 7, 300, dtype)
    assert_close(call(coordinate.phocas, Rows(x), 2), exact_mean(x[:7]), np.full(300, 4.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sign_majority(dtype):
    rng = np.random.default_rng(7)
    for n, values in itertools.product(SMALL, [ties, with_nonfinite]):
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        wanted = np.sign(np.nan_to_num(np.sign(x), nan=0).sum(axis=0)).astype(dtype)
        np.testing.assert_array_equal(call(coordinate.sign_majority, Rows(x)), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weighted_sum(dtype):
    rng = np.random.default_rng(8)
    for n in SMALL:
        x = normal(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        weights = rng.standard_normal(n)
        weights[1::3] = 0
        x[1::3] = np.nan  # rows of weight 0 are not read
        total = np.zeros(x.shape[1])
        for w, row in zip(weights, x, strict=True):
            if w:
                total = total + w * row.astype(np.float64)
        np.testing.assert_array_equal(call(weighted, Rows(x), weights), total.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_weight_copies_a_row(dtype):
    x = normal(np.random.default_rng(9), 4, 131, dtype)
    x[2, :3] = [-0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max]
    assert_bits(call(weighted, Rows(x), np.array([0.0, 0.0, 1.0, 0.0])), x[2])
    x[2, [5, 130]] = [np.nan, np.inf]
    assert_bits(call(weighted, Rows(x), np.array([0.0, 0.0, 1.0, 0.0])), clean(x[2]))
    assert_bits(call(weighted, Rows(x), np.zeros(4)), np.zeros(131, dtype))
