# Mixtures of n rows of d contiguous values, called without the GIL.
#
# Rows are taken in groups of four. Mixture i is weights[i] times the sum of the rows 4 g + j for which bit j of
# subset[g k + i] is set.
#
#   k         mixtures, >= 1
#   weights   k doubles
#   subset    (n + 3) / 4 groups of k bytes, each 0 to 15; no bit stands for a row beyond the last
#   rule, f   HB_MEDIAN, HB_TRIMMED_MEAN, HB_MEAN_AROUND_MEDIAN, HB_SIGN_MAJORITY or HB_PHOCAS of dispatch.pxd, and what
#             it drops, as in coordinate.pxd
#   out       k x d values, mixture after mixture; or d values of the rule; written; must not overlap any row
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)
#
# Added in the rows' own type, in the order of the groups; a row that is not in a mixture takes no part in it, whatever it holds.
# Non-finite results become 0. These declarations are a promise: they may be added to, not changed.

cdef int mixed_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t k, const double *weights,
                   const unsigned char *subset, float *out, int threads) noexcept nogil
cdef int mixed_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t k, const double *weights,
                   const unsigned char *subset, double *out, int threads) noexcept nogil

# The rule over the mixtures, which are never stored.
cdef int mixed_rule_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t k, const double *weights,
                        const unsigned char *subset, int rule, Py_ssize_t f, float *out,
                        int threads) noexcept nogil
cdef int mixed_rule_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, Py_ssize_t k, const double *weights,
                        const unsigned char *subset, int rule, Py_ssize_t f, double *out,
                        int threads) noexcept nogil
