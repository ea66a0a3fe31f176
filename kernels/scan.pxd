# How many values of each row are NaN or infinite, called without the GIL.
#
#   counts    n integers, written
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)

from libc.stdint cimport int64_t

cdef int nonfinite_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *counts,
                       int threads) noexcept nogil
cdef int nonfinite_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *counts,
                       int threads) noexcept nogil

# Sum of each row's 32-bit words modulo 2^32 (the time of reading every value once), called without the GIL.
cdef int checksum_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *sums,
                      int threads) noexcept nogil
cdef int checksum_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *sums,
                      int threads) noexcept nogil
