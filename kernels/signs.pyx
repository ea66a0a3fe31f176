# cython: language_level=3, embedsignature=True, annotation_typing=False
"""Signs of rows as bits, eight coordinates to a byte (`numpy.packbits(numpy.signbit(row))`): a 32nd of the bytes."""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc

from horovod_byz.kernels.rows cimport check, checked_threads

import numpy as np

include "generated/signs.pxi"


cdef const uint8_t[:, :] checked_packed(object packed):
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8 or packed.ndim != 2 or len(packed) == 0:
        raise TypeError("packed must be a uint8 array of the shape (n, bytes) with n >= 1, got "
                        f"{getattr(packed, 'dtype', type(packed).__name__)} of shape {np.shape(packed)}: "
                        "use numpy.packbits(numpy.signbit(rows), axis=1)")
    if packed.shape[1] > 1 and packed.strides[1] != 1:
        raise ValueError("each packed row must be contiguous: pass numpy.ascontiguousarray(packed)")
    return packed


cdef const uint8_t[::1] checked_bits(object bits, Py_ssize_t size, str what):
    if not isinstance(bits, np.ndarray) or bits.dtype != np.uint8 or bits.shape != (size,):
        raise TypeError(f"{what} must be a uint8 array of the shape ({size},), got "
                        f"{getattr(bits, 'dtype', type(bits).__name__)} of shape {np.shape(bits)}")
    return np.ascontiguousarray(bits)


cdef const uint8_t **pointers(const uint8_t[:, :] packed) except NULL:
    cdef Py_ssize_t i, n = packed.shape[0]
    # An array of pointers as the kernels take it; n of them, outside the loop over columns.
    cdef const uint8_t **found = <const uint8_t **>malloc(n * sizeof(uint8_t *))
    if found == NULL:
        raise MemoryError()
    for i in range(n):
        found[i] = &packed[i, 0]
    return found


def majority(packed: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Finds the coordinates that are negative in more than half of the rows, and in exactly half of them.

    Args:
        packed: uint8 of shape (n, bytes), a set bit for a negative sign; each row contiguous.
        threads: how many at most; no effect on the result.

    Returns:
        Two uint8 arrays of shape (bytes,), packed likewise: coordinates with a negative majority, and with a tie.

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    cdef const uint8_t[:, :] source = checked_packed(packed)
    cdef int team = checked_threads(threads), status
    cdef Py_ssize_t n = source.shape[0], size = source.shape[1]
    negative, tied = np.empty(size, np.uint8), np.empty(size, np.uint8)
    if size == 0:  # a memoryview of no bytes has no first element to point to
        return negative, tied
    cdef uint8_t[::1] above = negative, equal = tied
    cdef const uint8_t **rows = pointers(source)
    with nogil:
        status = majority_bits(rows, n, size, &above[0], &equal[0], team)
    free(rows)
    check(status)
    return negative, tied


def differences(packed: np.ndarray, point: np.ndarray, mask: np.ndarray, threads: int = 1) -> np.ndarray:
    """Counts the coordinates in which each row's sign differs from a point's.

    Args:
        packed: uint8 of shape (n, bytes); each row contiguous.
        point: uint8 of shape (bytes,), packed likewise.
        mask: uint8 of shape (bytes,): bits that are not set here are not counted, such as those past the last coordinate.
        threads: how many at most; no effect on the result.

    Returns:
        int64 of shape (n,).

    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    cdef const uint8_t[:, :] source = checked_packed(packed)
    cdef int team = checked_threads(threads), status
    cdef Py_ssize_t n = source.shape[0], size = source.shape[1]
    cdef const uint8_t[::1] other = checked_bits(point, size, "point"), counted = checked_bits(mask, size, "mask")
    counts = np.zeros(n, np.int64)
    if size == 0:
        return counts
    cdef int64_t[::1] found = counts
    cdef const uint8_t **rows = pointers(source)
    with nogil:
        status = differences_bits(rows, n, size, &other[0], &counted[0], &found[0], team)
    free(rows)
    check(status)
    return counts
