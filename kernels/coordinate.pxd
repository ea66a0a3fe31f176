# Coordinate-wise rules over n rows of d contiguous values, called without the GIL.
#
#   rows      n pointers; read only; need no alignment beyond the value's own
#   n, d      rows >= 1, values per row >= 0
#   out       d values, written; must not overlap any row
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)
#
# Values are ordered -NaN < -Inf < ... < -0 < +0 < ... < +Inf < +NaN.  A result that is not finite is written
# as 0. These declarations are a promise: they may be added to, not changed.

from libc.stdint cimport uint16_t

# Even n: the mean of the two middle values.
cdef int median_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, float *out,
                    int threads) noexcept nogil
cdef int median_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, double *out,
                    int threads) noexcept nogil

# Mean without the f lowest and f highest values; 0 <= 2 f < n.
cdef int trimmed_mean_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t f, float *out,
                          int threads) noexcept nogil
cdef int trimmed_mean_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t f, double *out,
                          int threads) noexcept nogil

# Mean of the n - f values nearest the median; of two equally near windows the lower; 0 <= f < n.
cdef int mean_around_median_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t f,
                                float *out, int threads) noexcept nogil
cdef int mean_around_median_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t f,
                                double *out, int threads) noexcept nogil

# Mean of the n - f values nearest the trimmed mean; of two equally near windows the lower; 0 <= 2 f < n.
cdef int phocas_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t f, float *out,
                    int threads) noexcept nogil
cdef int phocas_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t f, double *out,
                    int threads) noexcept nogil

# Sign of the sum of the signs: 1, 0 or -1; NaN and 0 count 0.
cdef int sign_majority_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, float *out,
                           int threads) noexcept nogil
cdef int sign_majority_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, double *out,
                           int threads) noexcept nogil

# The median of rows of 16 bits, as float32: bfloat16 where brain is not 0, else float16. 1 where the instruction set in use has
# no network of n rows: then nothing was written.
cdef int median_words(const uint16_t *const *rows, Py_ssize_t n, Py_ssize_t d, int brain, float *out,
                      int threads) noexcept nogil
