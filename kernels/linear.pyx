# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Linear combinations of rows."""

from horovod_byz.kernels.rows cimport Rows, check, checked_output, checked_rows, checked_threads

import numpy as np

include "generated/linear.pxi"


def weighted_sum(rows: Rows, weights: object, out: object, threads: int = 1) -> None:
    """Writes out_j = sum_i weights_i x_ij, added in float64 in the order of the rows.

    A row of weight 0 is not read, whatever it holds. If one weight is 1 and the others are 0, the row's bits
    are copied. A result that is not finite is written as 0.

    Args:
        rows: n rows of d values.
        weights: shape (n,), float64, finite.
        out: shape (d,), dtype of the rows, contiguous and writable.
        threads: how many at most; no effect on the result.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    cdef void *to = checked_output(source, out)
    cdef const double[::1] factor
    if not isinstance(weights, np.ndarray) or weights.dtype != np.float64:
        raise TypeError(f"weights must be a float64 array, got {getattr(weights, 'dtype',
                                                                        type(weights).__name__)}")
    if weights.shape != (source.n,):
        raise ValueError(f"weights must have shape (n,) = ({source.n},), got {weights.shape}")
    if not np.isfinite(weights).all():
        raise ValueError("weights must be finite")
    factor = np.ascontiguousarray(weights)
    with nogil:
        status = weighted_sum_of(source, &factor[0], to, team)
    check(status)
