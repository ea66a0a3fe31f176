"""Matrices, references and comparisons for the tests of the kernels."""

from __future__ import annotations

import numpy as np

from horovod_byz.kernels import linear

DTYPES = [np.float32, np.float64]
SMALL = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 20, 24, 25, 31, 32, 33, 45, 63, 64, 65, 70, 100, 129]
WIDTHS = [1, 2, 3, 5, 15, 16, 17, 31, 63, 64, 65, 200, 255, 256, 257, 300]


def normal(rng, n, d, dtype):
    return rng.standard_normal((n, d)).astype(dtype)


def ties(rng, n, d, dtype):
    """Few distinct values, signed zeros among them."""
    return rng.choice(np.array([-2.0, -1.0, -0.0, 0.0, 1.0, 1.5], dtype=dtype), size=(n, d))


def duplicates(rng, n, d, dtype):
    return normal(rng, n, d, dtype)[rng.integers(0, n, size=n) // 2]


def huge(rng, n, d, dtype):
    """Values of very different size, up to the largest the dtype holds."""
    top = np.finfo(dtype).max
    values = np.array([1.0, -1.0, 1e30, -1e30, 1e-30, top, -top, 0.9 * top], dtype=dtype)
    return values[rng.integers(0, len(values), size=(n, d))]


def denormals(rng, n, d, dtype):
    return (rng.standard_normal((n, d)) * np.finfo(dtype).smallest_normal / 8).astype(dtype)


FINITE = [normal, ties, duplicates, huge, denormals]


def with_nonfinite(rng, n, d, dtype):
    """About a tenth of the values are NaN of either sign or infinite."""
    x = normal(rng, n, d, dtype)
    bad = np.array([np.nan, -np.nan, np.inf, -np.inf], dtype=dtype)
    where = rng.random((n, d)) < 0.1
    x[where] = bad[rng.integers(0, 4, size=int(where.sum()))]
    return x


def flip(x):
    """The integer whose order is the order of the floats, NaN included."""
    bits = x.view(np.int32 if x.dtype == np.float32 else np.int64)
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


def ordered(x):
    return np.take_along_axis(x, np.argsort(flip(x), axis=0, kind="stable"), axis=0)


def clean(x):
    return np.where(np.isfinite(x), x, 0).astype(x.dtype)


def reference_median(x):
    y, n = ordered(x), len(x)
    a, b = y[(n - 1) // 2], y[n // 2]
    half = x.dtype.type(0.5)
    with np.errstate(all="ignore"):
        total = a + b
        return clean(a if n % 2 else np.where(np.isinf(total), a * half + b * half, total * half))


def exact_mean(y):
    """Mean over rows in extended precision: no overflow in between."""
    with np.errstate(all="ignore"):
        return clean(np.mean(y.astype(np.longdouble), axis=0).astype(y.dtype))


def call(kernel, rows, *args, threads=1):
    out = np.full(rows.d, 77, dtype=rows.dtype)
    kernel(rows, out, *args, threads=threads)
    return out


def weighted(rows, out, weights, threads=1):
    linear.weighted_sum(rows, weights, out, threads)


def bits(x):
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def assert_bits(got, wanted):
    np.testing.assert_array_equal(bits(got), bits(wanted))


def assert_close(got, wanted, scale=None):
    """Within rounding of the values that went in (``scale`` per coordinate), which survives cancellation."""
    eps = np.finfo(got.dtype).eps
    size = np.abs(wanted) if scale is None else scale
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.longdouble) - wanted)
    assert np.all(error <= 4 * eps * size + np.finfo(got.dtype).smallest_subnormal)


def half_of_them(k, n):
    """(n, k) weights of n means, each of half of k rows or so; one of them of a single row, one of none."""
    chosen = np.random.default_rng(k).random((n, k)) < 0.5
    chosen[0], chosen[1] = np.arange(k) == k - 1, False
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)
