# Weighted sum of n rows of d contiguous values, called without the GIL.
#
#   weights   n doubles; a row of weight 0 is not read
#   out       d values, written; must not overlap any row
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)
#
# Added in float64, row 0 first. One weight that is 1 among zeros copies that row's bits. Non-finite results
# become 0.

cdef int weighted_sum_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, const double *weights,
                          float *out, int threads) noexcept nogil
cdef int weighted_sum_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, const double *weights,
                          double *out, int threads) noexcept nogil
