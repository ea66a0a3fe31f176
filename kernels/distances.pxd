# Statistics of pairs of rows, called without the GIL.
#
#   n_by_n    n * n doubles by rows, written; symmetric
#   n_values  n doubles, written
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)
#
# Sums over columns have one fixed order: lanes, tiles of 4096 columns, a binary tree over tiles. Sums of
# column ranges that are nodes of that tree add up to the same bits.

# Squared Euclidean distances from direct differences; infinite where a row holds NaN or Inf; the diagonal is
# 0.
cdef int squared_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, double *n_by_n,
                     int threads) noexcept nogil
cdef int squared_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, double *n_by_n,
                     int threads) noexcept nogil

# Inner products of the rows minus their coordinate-wise median; NaN where a row holds NaN or Inf.
cdef int gram_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, double *n_by_n,
                  int threads) noexcept nogil
cdef int gram_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, double *n_by_n,
                  int threads) noexcept nogil

# Squared Euclidean distances of each row to a point of d values.
cdef int to_point_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, const float *point,
                      double *n_values, int threads) noexcept nogil
cdef int to_point_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, const double *point,
                      double *n_values, int threads) noexcept nogil
