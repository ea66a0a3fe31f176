# The statistics of BrSGD (Algorithm 2), called without the GIL.
#
#   scores    n integers, written: in how many columns the row is on the majority's side of the column's mean
#   l1        n doubles, written: sum of |value - column median|; infinite where a row holds NaN
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)

from libc.stdint cimport int64_t

cdef int statistics_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *scores, double *l1,
                        int threads) noexcept nogil
cdef int statistics_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, int64_t *scores, double *l1,
                        int threads) noexcept nogil
