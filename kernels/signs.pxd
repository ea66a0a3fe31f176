# Rows of signs as bits, eight coordinates to a byte, a set bit for a negative sign; called without the GIL.
#
#   rows      n pointers to `bytes` bytes each
#   negative  `bytes` bytes, written: the bits that are set in more than half of the rows
#   tied      the same for exactly half of them
#   point, mask, counts: counts[i], written, is the number of bits in which row i differs from `point` where `mask` is set
#   threads   at most so many, >= 1; no effect on the result
#   returns   0

from libc.stdint cimport int64_t, uint8_t

cdef int majority_bits(const uint8_t *const *rows, Py_ssize_t n, Py_ssize_t bytes, uint8_t *negative, uint8_t *tied,
                       int threads) noexcept nogil
cdef int differences_bits(const uint8_t *const *rows, Py_ssize_t n, Py_ssize_t bytes, const uint8_t *point,
                          const uint8_t *mask, int64_t *counts, int threads) noexcept nogil
