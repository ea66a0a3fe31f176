# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Scans of the rows: counts of non-finite values, and a plain read of every value."""

from libc.stdint cimport int64_t

from horovod_byz.kernels.rows cimport Rows, check, checked_rows, checked_threads

import numpy as np

include "generated/scan.pxi"

ctypedef int (*scan)(Rows, int64_t *, int) noexcept nogil


cdef object of_each_row(object rows, object threads, scan kernel):
    """Runs a scan with one result per row, int64 of shape (n,)."""
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    found = np.empty(source.n, dtype=np.int64)
    cdef int64_t[::1] to = found
    with nogil:
        status = kernel(source, &to[0], team)
    check(status)
    return found


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
    return of_each_row(rows, threads, nonfinite_of)


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
    return of_each_row(rows, threads, checksum_of)
