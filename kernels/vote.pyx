# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Equality of rows, bit for bit: replicas of one computation agree exactly or somebody is wrong.

+0 and -0 differ; a NaN equals a NaN of the same bits.
"""

from horovod_byz.kernels.dispatch cimport kernels
from horovod_byz.kernels.rows cimport Rows, check, checked_rows, checked_threads

import numpy as np


cdef int classes(const void *const *rows, Py_ssize_t n, Py_ssize_t bytes, Py_ssize_t *classes,
                 int threads) noexcept nogil:
    return kernels().classes(rows, n, bytes, classes, threads)


cdef object equal_to(object rows, object threads):
    """For each row the lowest row that equals it, int64 of shape (n,)."""
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    lowest = np.empty(source.n, dtype=np.intp)
    cdef Py_ssize_t[::1] to = lowest
    with nogil:
        status = classes(<const void *const *>source.pointers, source.n,
                         source.d * (8 if source.is_double else 4),
                         &to[0], team)
    check(status)
    return lowest


def mismatches(rows: Rows, threads: int = 1) -> np.ndarray:
    """Which pairs of rows differ in some bit.  Over several column ranges the results are combined by ``or``.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        bool of shape (n, n), symmetric.

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    lowest = equal_to(rows, threads)
    return lowest[:, None] != lowest[None, :]


def majority(rows: Rows, threads: int = 1) -> int:
    """The lowest row whose bits more than n / 2 rows share, or -1 if no such row exists.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        Row index, or -1.

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    lowest = equal_to(rows, threads)
    counts = np.bincount(lowest)
    best = int(counts.argmax())
    return best if 2 * int(counts[best]) > len(lowest) else -1
