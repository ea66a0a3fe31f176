# Rows: n pointers to d contiguous values each, with the arrays they point into kept alive.
#
# Any kernel of this package takes `<const float *const *>rows.pointers` (or double, see `is_double`),
# `rows.n` and `rows.d`.  The pointers are valid as long as the Rows object is.


cdef class Rows:
    cdef const void **pointers       # n of them, owned by this object
    cdef readonly Py_ssize_t n       # rows, at least 1
    cdef readonly Py_ssize_t d       # values per row, may be 0
    cdef readonly object dtype       # numpy.dtype: float32 or float64
    cdef readonly bint is_double     # dtype is float64
    cdef object owners               # the arrays that must stay alive


# Checks for the Python functions of the kernels. Each raises TypeError or ValueError with the argument, the given
# value and the remedy.

# An aligned float32 or float64 array of `ndim` dimensions whose last axis is contiguous.
cdef object checked_array(object array, str what, int ndim)
# rows as a Rows; anything else is a TypeError.
cdef Rows checked_rows(object rows)
# The number of threads, at least 1.
cdef int checked_threads(object threads) except -1
# The start of `out`: 1-D, contiguous, writable, length d, dtype of rows, sharing no memory with them.
cdef void *checked_output(Rows rows, object out) except? NULL
# The start of `point`: 1-D, contiguous, length d, dtype of rows.
cdef const void *checked_point(Rows rows, object point) except? NULL
# Nothing for status 0, MemoryError otherwise.
cdef int check(int status) except -1
