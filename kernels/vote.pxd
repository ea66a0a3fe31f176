# Which rows are equal bit for bit, called without the GIL.
#
#   rows      n pointers to `bytes` bytes each
#   classes   n numbers, written: classes[i] is the lowest row that equals row i (i itself if none below does)
#   threads   at most so many, >= 1; no effect on the result
#   returns   0, or -1 when there was no memory for the workspace (then nothing was written)

cdef int classes(const void *const *rows, Py_ssize_t n, Py_ssize_t bytes, Py_ssize_t *classes,
                 int threads) noexcept nogil
