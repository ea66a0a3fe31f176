# cython: language_level=3, embedsignature=True, annotation_typing=False
"""The rows that a kernel reads: n pointers into a matrix or into separate arrays, never a copy."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc

import numbers
import operator

import numpy as np

#: Columns after which statistics over columns are summed up; callers split columns at multiples of it.
TILE = 4096

cdef object FLOAT32 = np.dtype(np.float32)
cdef object FLOAT64 = np.dtype(np.float64)


cdef const void *start(object array):
    # No typed memoryview: one function then serves both dtypes and any number of dimensions.
    cdef size_t address = array.__array_interface__["data"][0]
    return <const void *>address


cdef object checked_array(object array, str what, int ndim):
    """An aligned float array of `ndim` dimensions whose last axis is contiguous."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{what} must be a NumPy array, got {type(array).__name__}: "
                        "convert it with numpy.asarray")
    if array.dtype != FLOAT32 and array.dtype != FLOAT64:
        raise TypeError(f"{what} must be float32 or float64 in native byte order, got {array.dtype}: "
                        "convert it with .astype(numpy.float32)")
    if array.ndim != ndim:
        raise ValueError(f"{what} must have {ndim} dimension(s), got shape {array.shape}")
    if array.size > 0 and array.shape[ndim - 1] > 1 and array.strides[ndim - 1] != array.itemsize:
        raise ValueError(f"{what} must hold its values side by side, got strides {array.strides}: "
                         "pass numpy.ascontiguousarray of it")
    if not array.flags.aligned:
        raise ValueError(f"{what} must be aligned to its item size: pass a copy of it")
    return array


cdef int allocate(Rows rows, Py_ssize_t n, Py_ssize_t d, object dtype) except -1:
    if n < 1:
        raise ValueError("rows must hold at least one row, got none")
    if rows.pointers != NULL:  # __init__ may be called twice on one object
        PyMem_Free(rows.pointers)
    rows.pointers = <const void **>PyMem_Malloc(n * sizeof(void *))
    if rows.pointers == NULL:
        raise MemoryError(f"no room for {n} row pointers")
    rows.n = n
    rows.d = d
    rows.is_double = dtype == FLOAT64
    rows.dtype = FLOAT64 if rows.is_double else FLOAT32
    return 0


cdef class Rows:
    """n rows of d values, to be read by a kernel.

    Args:
        data: array of shape `(n, d)`, float32 or float64, unit stride within a row (any stride between
            rows, read-only is fine); or a sequence of n contiguous arrays of shape `(d,)` and one dtype.

    Nothing is copied: the arrays are kept alive and read when a kernel runs.

    Raises:
        TypeError: if data is no array or sequence of arrays, or not float32 / float64.
        ValueError: if there are no rows, lengths differ, the number of dimensions is wrong, or values are not contiguous.
    """

    def __cinit__(self):
        self.pointers = NULL

    def __init__(self, data: object) -> None:
        cdef Py_ssize_t i, stride
        cdef const char *first
        if isinstance(data, np.ndarray):
            checked_array(data, "rows", 2)
            allocate(self, data.shape[0], data.shape[1], data.dtype)
            first = <const char *>start(data)
            stride = data.strides[0]
            for i in range(self.n):
                self.pointers[i] = first + i * stride
            self.owners = data
            return
        if isinstance(data, (str, bytes, dict)) or not hasattr(data, "__getitem__"):
            raise TypeError("rows must be a 2-D array or a sequence of 1-D arrays, "
                            f"got {type(data).__name__}")
        arrays = tuple(data)
        for i, array in enumerate(arrays):
            checked_array(array, f"row {i}", 1)
            if array.dtype != arrays[0].dtype:
                raise TypeError(f"row {i} is {array.dtype}, row 0 is {arrays[0].dtype}: "
                                "give all rows one dtype")
            if array.shape != arrays[0].shape:
                raise ValueError(f"row {i} has {array.shape[0]} values, row 0 has {arrays[0].shape[0]}: "
                                 "all rows need the same length")
        if arrays:
            allocate(self, len(arrays), arrays[0].shape[0], arrays[0].dtype)
        else:
            allocate(self, 0, 0, FLOAT32)
        for i in range(self.n):
            self.pointers[i] = start(arrays[i])
        self.owners = arrays

    def __dealloc__(self):
        PyMem_Free(self.pointers)

    def block(self, begin: int, end: int) -> Rows:
        """The same rows over coordinates `[begin, end)`, without a copy.

        Raises:
            ValueError: unless 0 <= begin <= end <= d.
        """
        cdef Py_ssize_t low = begin, high = end, i
        cdef Rows part
        if not 0 <= low <= high <= self.d:
            raise ValueError(f"a block needs 0 <= begin <= end <= d = {self.d}, got [{begin}, {end})")
        part = Rows.__new__(Rows)
        allocate(part, self.n, high - low, self.dtype)
        for i in range(self.n):
            part.pointers[i] = <const char *>self.pointers[i] + low * (8 if self.is_double else 4)
        part.owners = self.owners  # the arrays, not `self`: chains of blocks would keep every link alive
        return part

    def take(self, indices: object) -> Rows:
        """The rows at `indices`, in that order, without a copy.

        Raises:
            ValueError: if there are no indices.
            IndexError: if an index is outside [0, n).
        """
        cdef Py_ssize_t i, index
        cdef list chosen = [operator.index(item) for item in indices]
        cdef Rows part = Rows.__new__(Rows)
        allocate(part, len(chosen), self.d, self.dtype)
        for i in range(part.n):
            index = chosen[i]
            if not 0 <= index < self.n:
                raise IndexError(f"row index {index} is outside [0, {self.n})")
            part.pointers[i] = self.pointers[index]
        part.owners = self.owners
        return part

    def with_row(self, row: object) -> Rows:
        """These rows and one more at the end, without a copy.

        Args:
            row: contiguous array of shape `(d,)`, dtype of the rows.

        Raises:
            TypeError, ValueError: if it does not fit.
        """
        cdef Py_ssize_t i
        cdef Rows part
        checked_vector(self, row, "row")
        part = Rows.__new__(Rows)
        allocate(part, self.n + 1, self.d, self.dtype)
        for i in range(self.n):
            part.pointers[i] = self.pointers[i]
        part.pointers[self.n] = start(row)
        part.owners = (self.owners, row)
        return part

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"Rows(n={self.n}, d={self.d}, dtype={self.dtype})"


cdef Rows checked_rows(object rows):
    if not isinstance(rows, Rows):
        raise TypeError(f"rows must be a Rows, got {type(rows).__name__}: wrap it as Rows(...)")
    return <Rows>rows


cdef int checked_threads(object threads) except -1:
    if not isinstance(threads, numbers.Integral) or isinstance(threads, bool):
        raise TypeError(f"threads must be an integer, got {threads!r}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    return min(threads, 1024)


cdef object checked_vector(Rows rows, object array, str what):
    checked_array(array, what, 1)
    if array.dtype != rows.dtype:
        raise TypeError(f"{what} must have the dtype of the rows, {rows.dtype}, got {array.dtype}")
    if array.shape[0] != rows.d:
        raise ValueError(f"{what} must have length d = {rows.d}, got {array.shape[0]}")
    return array


cdef void *checked_output(Rows rows, object out) except? NULL:
    cdef Py_ssize_t i, size
    cdef const char *first
    cdef const char *other
    checked_vector(rows, out, "out")
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    first = <const char *>start(out)
    size = rows.d * (8 if rows.is_double else 4)
    for i in range(rows.n):
        other = <const char *>rows.pointers[i]
        # Every row by itself: rows of a matrix may be far apart, with `out` between two of them.
        if first < other + size and other < first + size:
            raise ValueError(f"out shares memory with row {i}: pass a separate array")
    return <void *>first


cdef const void *checked_point(Rows rows, object point) except? NULL:
    return start(checked_vector(rows, point, "point"))


cdef int check(int status) except -1:
    if status != 0:
        raise MemoryError("no room for the workspace of a kernel")
    return 0
