# Which rows are equal bit for bit, called without the GIL.
#
#   rows      n pointers to `bytes` bytes each
#   classes   n numbers, n * sizeof(Py_ssize_t) bytes, written: classes[i] is the lowest row that equals row i (i itself if none below does)
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)

cdef int classes(const void *const *rows, Py_ssize_t n, Py_ssize_t bytes, Py_ssize_t *classes,
                 int threads) noexcept nogil

# A vote and two coordinate-wise stages in one pass. An HbStage is {rule, f, groups, start, member}: group g holds
# member[start[g]] .. member[start[g + 1] - 1] of what the stage before gave, and f is 0 where the rule has none.
# Of 6 rows in 2 redundancy groups of 3, the mean of the votes:
#
#     start = [0, 3, 6]; replicas = [0, 1, 2, 3, 4, 5]; whole = [0, 2]; votes = [0, 1]   # arrays of Py_ssize_t
#     stages[0] = HbStage(HB_VOTE, 0, 2, &start[0], &replicas[0])   # members are rows, each in one group
#     stages[1] = HbStage(HB_MEAN, 0, 1, &whole[0], &votes[0])      # members are votes, each in one part
#     stages[2] = HbStage(HB_MEAN, 0, 1, NULL, NULL)                # over all parts
#
#   stages    three: the vote, the rule inside each part of what it elects, the rule over the parts' results
#   lazy      1: replicas beyond a majority that agrees are not read
#   out       d values, written; must not overlap any row; NULL: the vote alone
#   classes   n numbers, n * sizeof(Py_ssize_t) bytes, written: the lowest row of its group that equals the row, -1 where it was not read
#   returns   0; -1 without memory; 1 where a group has no majority or a mean would take in a non-finite value:
#             then `out` holds nothing of use

from horovod_byz.kernels.dispatch cimport HbStage

cdef int voted_f32(const float *const *rows, Py_ssize_t n, Py_ssize_t d, const HbStage *stages, int lazy,
                   float *out, Py_ssize_t *classes, int threads) noexcept nogil
cdef int voted_f64(const double *const *rows, Py_ssize_t n, Py_ssize_t d, const HbStage *stages, int lazy,
                   double *out, Py_ssize_t *classes, int threads) noexcept nogil
