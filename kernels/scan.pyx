# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Scans of the rows: values that no rule may let through, and a plain read of every value."""

from libc.stdint cimport int64_t

from horovod_byz.kernels.dispatch cimport kernels
from horovod_byz.kernels.rows cimport Rows, check, checked_rows, checked_threads

import numpy as np


cdef int nonfinite_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *counts,
                       int threads) noexcept nogil:
    return kernels().nonfinite_f32(rows, n, d, counts, threads)


cdef int nonfinite_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *counts,
                       int threads) noexcept nogil:
    return kernels().nonfinite_f64(rows, n, d, counts, threads)


def nonfinite(rows: Rows, threads: int = 1) -> np.ndarray:
    """How many values of each row are NaN or infinite.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        int64 of shape (n,).

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    counts = np.empty(source.n, dtype=np.int64)
    cdef int64_t[::1] count = counts
    with nogil:
        if source.is_double:
            status = nonfinite_f64(<const double *const *>source.pointers, source.n, source.d, &count[0],
                                   team)
        else:
            status = nonfinite_f32(<const float *const *>source.pointers, source.n, source.d, &count[0], team)
    check(status)
    return counts


cdef int checksum_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *sums,
                      int threads) noexcept nogil:
    return kernels().checksum_f32(rows, n, d, sums, threads)


cdef int checksum_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *sums,
                      int threads) noexcept nogil:
    return kernels().checksum_f64(rows, n, d, sums, threads)


def checksum(rows: Rows, threads: int = 1) -> np.ndarray:
    """Sum of the 32-bit words of each row, modulo 2^32.

    It reads every value once and does one addition with it: the time that no rule can be faster than.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        int64 of shape (n,).

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    sums = np.empty(source.n, dtype=np.int64)
    cdef int64_t[::1] total = sums
    with nogil:
        if source.is_double:
            status = checksum_f64(<const double *const *>source.pointers, source.n, source.d, &total[0], team)
        else:
            status = checksum_f32(<const float *const *>source.pointers, source.n, source.d, &total[0], team)
    check(status)
    return sums
