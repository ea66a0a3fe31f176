# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Distances and products of rows, as sums over columns in one fixed order.

The order: a lane per column modulo 16 (float32) or 8 (float64), float32 lanes added to float64 ones every 256
columns (1024 for inner products), a fixed sum of the lanes per tile of `rows.TILE` columns, and a binary tree
over tiles counted from the start of the rows. A caller may therefore cut the columns at nodes of that tree,
call once per node, add, and get the same bits. Where float32 lanes overflow or underflow, the tile is computed again in float64.
"""

from horovod_byz.kernels.dispatch cimport (HB_MEAN, HB_MEAN_AROUND_MEDIAN, HB_MEDIAN, HB_PHOCAS, HB_SIGN_MAJORITY,
                                           HB_TRIMMED_MEAN)
from horovod_byz.kernels.rows cimport Rows, check, checked_output, checked_point, checked_rows, checked_threads

import operator

import numpy as np

include "generated/distances.pxi"

ctypedef int (*pairs)(Rows, double *, int) noexcept nogil


cdef object of_pairs(object rows, object threads, pairs kernel):
    """Runs a kernel with one result per pair of rows, float64 of shape (n, n)."""
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    result = np.empty((source.n, source.n), dtype=np.float64)
    cdef double[:, ::1] to = result
    with nogil:
        status = kernel(source, &to[0, 0], team)
    check(status)
    return result


def squared(rows: Rows, threads: int = 1) -> np.ndarray:
    """Squared Euclidean distances of all pairs of rows: D_ik = sum_j (x_ij - x_kj)^2.

    From direct differences, so rows with a large common part keep their small differences. A row that holds
    NaN or Inf is infinitely far from every other; the diagonal is 0.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        float64 of shape (n, n), symmetric.

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    return of_pairs(rows, threads, squared_of)


def gram(rows: Rows, threads: int = 1) -> np.ndarray:
    """Inner products of the rows minus the coordinate-wise median m: G_ik = sum_j (x_ij - m_j)(x_kj - m_j).

    One row could move a mean as the centre anywhere; the median keeps honest rows near the origin.
    Entries of a row that holds NaN or Inf are NaN.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        float64 of shape (n, n), symmetric.

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    return of_pairs(rows, threads, gram_of)


def to_point(rows: Rows, point: np.ndarray, threads: int = 1) -> np.ndarray:
    """Squared Euclidean distance of each row to a point: D_i = sum_j (x_ij - point_j)^2.

    It is infinite for a row that holds NaN or Inf.

    Args:
        rows: n rows of d values.
        point: shape (d,), dtype of the rows, contiguous.
        threads: how many at most; no effect on the result.

    Returns:
        float64 of shape (n,).

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    cdef const void *centre = checked_point(source, point)
    result = np.empty(source.n, dtype=np.float64)
    cdef double[::1] to = result
    with nogil:
        status = to_point_of(source, centre, &to[0], team)
    check(status)
    return result


def to_point_and_norms(rows: Rows, point: np.ndarray, threads: int = 1) -> np.ndarray:
    """Squared distances to a point and squared norms, in one reading of the rows.

    Both have the bits of `to_point`: to the point, and to the origin. They are infinite for a row that holds NaN
    or Inf.

    Args:
        rows: n rows of d values.
        point: shape (d,), dtype of the rows, contiguous.
        threads: how many at most; no effect on the result.

    Returns:
        float64 of shape (2, n + 1): distances of the rows and, 0, of the point to itself; norms of the rows and
        of the point.

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    cdef const void *centre = checked_point(source, point)
    result = np.empty((2, source.n + 1), dtype=np.float64)
    cdef double[:, ::1] to = result
    with nogil:
        status = to_point_and_norms_of(source, centre, &to[0, 0], team)
    check(status)
    return result


_RULES = {
    "median": HB_MEDIAN,
    "trimmed_mean": HB_TRIMMED_MEAN,
    "mean_around_median": HB_MEAN_AROUND_MEDIAN,
    "sign_majority": HB_SIGN_MAJORITY,
    "phocas": HB_PHOCAS,
}


def combined(rows: Rows, rule: object, out: object, threads: int = 1) -> np.ndarray:
    """Writes a rule's result to `out`, and measures `to_point_and_norms` of it while the rows are in a cache.

    The bits are those of the two kernels one after the other, which read the rows from memory twice.

    Args:
        rows: n rows of d values.
        rule: `(name, f)` of a rule of `coordinate`, f 0 where it has none; or weights, (n,) float64 and finite,
            for `linear.weighted_sum`.
        out: shape (d,), dtype of the rows, contiguous and writable.
        threads: how many at most; no effect on the result.

    Returns:
        float64 of shape (2, n + 1), as `to_point_and_norms`.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status, which = HB_MEAN
    cdef void *to = checked_output(source, out)
    cdef Py_ssize_t f = 0
    cdef const double[::1] weights
    cdef const double *weight = NULL
    if isinstance(rule, np.ndarray):
        if rule.dtype != np.float64 or rule.shape != (source.n,) or not np.isfinite(rule).all():
            raise ValueError(f"weights must be finite float64 of shape (n,) = ({source.n},), got {rule!r}")
        weights = np.ascontiguousarray(rule)
        weight = &weights[0]
    else:
        name, trimmed = rule
        if name not in _RULES:
            raise ValueError(f"rule must be one of {', '.join(_RULES)}, or weights, got {name!r}")
        which, f = _RULES[name], operator.index(trimmed)
        half = (source.n - 1) // 2
        most = {"trimmed_mean": half, "phocas": half, "mean_around_median": source.n - 1}.get(name, 0)
        if not 0 <= f <= most:
            raise ValueError(f"{name} of {source.n} rows needs 0 <= f <= {most}, got f = {f}")
    result = np.empty((2, source.n + 1), dtype=np.float64)
    cdef double[:, ::1] lengths = result
    with nogil:
        status = combined_of(source, which, f, weight, to, &lengths[0, 0], team)
    check(status)
    return result
