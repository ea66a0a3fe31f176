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

# Squared Euclidean distances of each row to a point of d values, and squared norms, in one reading of the rows.
#
#   twice     2 (n + 1) doubles, written: n distances and 0, that of the point to itself; n norms and the point's
cdef int to_point_and_norms_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, const float *point,
                                double *twice, int threads) noexcept nogil
cdef int to_point_and_norms_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, const double *point,
                                double *twice, int threads) noexcept nogil

# A rule's result, and the sums of to_point_and_norms with the result as the point, while the rows are in a cache.
#
#   rule      HB_MEDIAN, HB_TRIMMED_MEAN, HB_MEAN_AROUND_MEDIAN, HB_SIGN_MAJORITY of dispatch.pxd, with the bits of
#             coordinate.pxd; HB_MEAN: the weighted sum of linear.pxd
#   f         for the trimmed mean and the mean around the median, as in coordinate.pxd; else 0
#   weights   n doubles for HB_MEAN; else not read
#   out       d values, written; must not overlap any row
cdef int combined_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, int rule, Py_ssize_t f,
                      const double *weights, float *out, double *twice, int threads) noexcept nogil
cdef int combined_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, int rule, Py_ssize_t f,
                      const double *weights, double *out, double *twice, int threads) noexcept nogil
