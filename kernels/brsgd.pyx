# cython: language_level=3, embedsignature=True, annotation_typing=False
"""The two statistics of BrSGD, in one pass over the rows."""

from libc.stdint cimport int64_t

from horovod_byz.kernels.rows cimport Rows, check, checked_rows, checked_threads

import numpy as np

include "generated/brsgd.pxi"


def statistics(rows: Rows, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scores s_i = #{j : row i is on the majority side of column j}; distances l_i = sum_j |x_ij - median_j|.

    Column j is cut at its mean (a float64 sum in the order of the rows, divided by n). If fewer than n / 2
    values are >= the mean, those below it score 1 and the others 0; otherwise, ties included, those >= it
    score 1.

    Args:
        rows: n rows of d values.
        threads: how many at most; no effect on the result.

    Returns:
        scores, int64 of shape (n,); L1 distances to the coordinate-wise median, float64 of shape (n,), summed
        in the order of `horovod_byz.kernels.distances`, infinite for a row that holds NaN.

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    scores = np.empty(source.n, dtype=np.int64)
    l1 = np.empty(source.n, dtype=np.float64)
    cdef int64_t[::1] score = scores
    cdef double[::1] distance = l1
    with nogil:
        status = statistics_of(source, &score[0], &distance[0], team)
    check(status)
    return scores, l1
