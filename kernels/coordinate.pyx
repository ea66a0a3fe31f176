# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Coordinate-wise rules: one value per coordinate from the n values the rows hold there.

Values are ordered -NaN < -Inf < ... < -0 < +0 < ... < +Inf < +NaN, so a NaN is an extreme value like any
other. A result that is not finite is written as 0. Results do not depend on threads, instruction set or the
cut into blocks.
"""

from libc.stdint cimport uint16_t
from libc.stdlib cimport free, malloc

from horovod_byz.kernels.rows cimport Rows, check, checked_output, checked_rows, checked_threads

import operator

import numpy as np

include "generated/coordinate.pxi"

ctypedef int (*rule)(Rows, void *, int) noexcept nogil
ctypedef int (*dropping)(Rows, Py_ssize_t, void *, int) noexcept nogil


cdef int write(object rows, object out, object threads, rule kernel) except -1:
    """Checks the arguments and runs a kernel that writes one value per column."""
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    cdef void *to = checked_output(source, out)
    with nogil:
        status = kernel(source, to, team)
    return check(status)


cdef int write_without(object rows, object out, object f, Py_ssize_t ends, str what, object threads,
                       dropping kernel) except -1:
    """Like `write`, for a kernel that drops f values at one or both `ends` of each sorted column."""
    cdef Rows source = checked_rows(rows)
    cdef int team = checked_threads(threads), status
    cdef Py_ssize_t drop = operator.index(f), most = (source.n - 1) // ends
    if not 0 <= drop <= most:
        raise ValueError(f"{what} of n = {source.n} rows needs 0 <= f <= {most}, got f = {f}")
    cdef void *to = checked_output(source, out)
    with nogil:
        status = kernel(source, drop, to, team)
    return check(status)


def median(rows: Rows, out: object, threads: int = 1) -> None:
    """Writes the coordinate-wise median: out_j = median of x_1j .. x_nj.

    For even n the mean of the two middle values, which does not overflow.

    Args:
        rows: n rows of d values.
        out: shape (d,), dtype of the rows, contiguous and writable.
        threads: how many at most; no effect on the result.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    write(rows, out, threads, median_of)


cdef const uint16_t *checked_words(object row, object out, Py_ssize_t i) except? NULL:
    """The words of a row: as many as `out` has values, and not its memory."""
    if not isinstance(row, np.ndarray) or row.dtype != np.uint16 or not row.dtype.isnative or row.ndim != 1:
        raise TypeError(f"row {i} must be a 1-D uint16 array, got {getattr(row, 'dtype', type(row).__name__)} of "
                        f"shape {np.shape(row)}: pass row.view(numpy.uint16)")
    if row.shape[0] != out.shape[0]:
        raise ValueError(f"row {i} has {row.shape[0]} values, out has {out.shape[0]}: all need the same length")
    if not row.flags.c_contiguous or not row.flags.aligned:
        raise ValueError(f"row {i} must hold its values side by side, aligned: pass numpy.ascontiguousarray of it")
    if np.may_share_memory(row, out):
        raise ValueError(f"out shares memory with row {i}: pass a separate array")
    cdef size_t address = row.__array_interface__["data"][0]
    return <const uint16_t *>address


def median_half(rows: object, out: object, brain: bool, threads: int = 1) -> bool:
    """Writes the coordinate-wise median of rows of 16 bits, with the bits of `median` of the same values as float32.

    Args:
        rows: n arrays of shape (d,), uint16: the bits of bfloat16 or float16 values.
        out: shape (d,), float32, contiguous and writable.
        brain: whether the rows are bfloat16; float16 otherwise.
        threads: how many at most; no effect on the result.

    Returns:
        False where the instruction set in use has no network of so many rows; then nothing was written.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    cdef list parts = list(rows)
    cdef Py_ssize_t i, n = len(parts)
    cdef int team = checked_threads(threads), brains = bool(brain), status
    if n == 0:
        raise ValueError("rows must hold at least one row, got none")
    cdef Rows written = Rows([out])  # which checks its dtype and layout
    if written.is_double or not out.flags.writeable:
        raise TypeError(f"out must be a writable float32 array, got {out.dtype}")
    cdef Py_ssize_t d = written.d
    cdef float *to = <float *>written.pointers[0]
    cdef const uint16_t **pointers = <const uint16_t **>malloc(n * sizeof(uint16_t *))
    if pointers == NULL:
        raise MemoryError(f"no room for {n} row pointers")
    try:
        for i in range(n):
            pointers[i] = checked_words(parts[i], out, i)
        with nogil:
            status = median_words(pointers, n, d, brains, to, team)
    finally:
        free(pointers)
    return status != 1 and check(status) == 0


def trimmed_mean(rows: Rows, out: object, f: int, threads: int = 1) -> None:
    """Writes the trimmed mean: in each coordinate the mean without the f lowest and the f highest values.

    The kept values are added in float64, lowest first.

    Args:
        rows: n rows of d values.
        out: shape (d,), dtype of the rows, contiguous and writable.
        f: values dropped at each end, 0 <= f and 2 f < n.
        threads: how many at most; no effect on the result.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    write_without(rows, out, f, 2, "trimmed mean", threads, trimmed_mean_of)


def mean_around_median(rows: Rows, out: object, f: int, threads: int = 1) -> None:
    """Writes the mean around the median: in each coordinate the mean of the n - f values nearest the median.

    They are a contiguous window of the sorted values; of two equally near windows the lower one counts. The
    median is taken in float64, for even n as the exact mean of the middle two; the kept values are added
    in an order that depends on their ranks only.

    Args:
        rows: n rows of d values.
        out: shape (d,), dtype of the rows, contiguous and writable.
        f: values left out, 0 <= f < n.
        threads: how many at most; no effect on the result.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    write_without(rows, out, f, 1, "mean around median", threads, mean_around_median_of)


def phocas(rows: Rows, out: object, f: int, threads: int = 1) -> None:
    """Writes Phocas: in each coordinate the mean of the n - f values nearest the trimmed mean.

    They are a contiguous window of the sorted values; of two equally near windows the lower one counts. The
    trimmed mean, without the f lowest and the f highest values, is taken in float64.

    Args:
        rows: n rows of d values.
        out: shape (d,), dtype of the rows, contiguous and writable.
        f: values left out, and dropped at each end for the trimmed mean, 0 <= f and 2 f < n.
        threads: how many at most; no effect on the result.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    write_without(rows, out, f, 2, "Phocas", threads, phocas_of)


def sign_majority(rows: Rows, out: object, threads: int = 1) -> None:
    """Writes the sign of the sum of the signs: +1, 0 or -1 in each coordinate; NaN and 0 have sign 0.

    Args:
        rows: n rows of d values.
        out: shape (d,), dtype of the rows, contiguous and writable.
        threads: how many at most; no effect on the result.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing was written.
    """
    write(rows, out, threads, sign_majority_of)
