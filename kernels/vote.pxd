# Which rows are equal bit for bit, called without the GIL.
#
#   rows      n pointers to `bytes` bytes each
#   classes   n numbers, written: classes[i] is the lowest row that equals row i (i itself if none below does)
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)

cdef int classes(const void *const *rows, Py_ssize_t n, Py_ssize_t bytes, Py_ssize_t *classes,
                 int threads) noexcept nogil

# A vote and two coordinate-wise stages in one pass; core/kernels.h says what an HbStage holds.
#
#   stages    three: the vote, the rule inside each part of what it elects, the rule over the parts' results
#   lazy      1: replicas beyond a majority that agrees are not read
#   out       d values, written; must not overlap any row; NULL: the vote alone
#   classes   n numbers, written: the lowest row of its group that equals the row, -1 where it was not read
#   returns   0; -1 without memory; 1 where a group has no majority or a mean would take in a non-finite value:
#             then `out` holds nothing of use

from horovod_byz.kernels.dispatch cimport HbStage

cdef int voted_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, const HbStage *stages, int lazy,
                   float *out, Py_ssize_t *classes, int threads) noexcept nogil
cdef int voted_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, const HbStage *stages, int lazy,
                   double *out, Py_ssize_t *classes, int threads) noexcept nogil
