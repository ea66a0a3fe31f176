# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Coordinate-wise rules: one value per coordinate from the n values the rows hold there.

Values are ordered -NaN < -Inf < ... < -0 < +0 < ... < +Inf < +NaN, so a NaN is an extreme value like any
other. A result that is not finite is written as 0. Results do not depend on threads, instruction set or the
cut into blocks.
"""

from horovod_byz.kernels.rows cimport Rows, check, checked_output, checked_rows, checked_threads

import operator

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
