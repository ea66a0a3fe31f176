# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Scans of the rows: counts of non-finite values, and a plain read of every value."""

from libc.stdint cimport int64_t

from horovod_byz.kernels.dispatch cimport kernels
from horovod_byz.kernels.rows cimport Rows, check, checked_rows, checked_threads

import numpy as np

ctypedef int (*scan_f32)(const float *const *, Py_ssize_t, Py_ssize_t, int64_t *, int) noexcept nogil
ctypedef int (*scan_f64)(const double *const *, Py_ssize_t, Py_ssize_t, int64_t *, int) noexcept nogil


cdef object of_each_row(object rows, object threads, scan_f32 single, scan_f64 double_):
    """Runs a scan with one result per row, int64 of shape (n,)."""
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    found = np.empty(source.n, dtype=np.int64)
    cdef int64_t[::1] to = found
    with nogil:
        if source.is_double:
            status = double_(<const double *const *>source.pointers, source.n, source.d, &to[0], team)
        else:
            status = single(<const float *const *>source.pointers, source.n, source.d, &to[0], team)
    check(status)
    return found


cdef int nonfinite_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *counts,
                       int threads) noexcept nogil:
    return kernels().nonfinite_f32(rows, n, d, counts, threads)


cdef int nonfinite_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *counts,
                       int threads) noexcept nogil:
    return kernels().nonfinite_f64(rows, n, d, counts, threads)


def nonfinite(rows: Rows, threads: int = 1) -> np.ndarray:
    """Counts the NaN and infinite values of each row.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        int64 of shape (n,).

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    return of_each_row(rows, threads, nonfinite_f32, nonfinite_f64)


cdef int checksum_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *sums,
                      int threads) noexcept nogil:
    return kernels().checksum_f32(rows, n, d, sums, threads)


cdef int checksum_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *sums,
                      int threads) noexcept nogil:
    return kernels().checksum_f64(rows, n, d, sums, threads)


def checksum(rows: Rows, threads: int = 1) -> np.ndarray:
    """Sum of the 32-bit words of each row, modulo 2^32.

    It reads every value once and adds it: no rule can be faster.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        int64 of shape (n,).

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    return of_each_row(rows, threads, checksum_f32, checksum_f64)
