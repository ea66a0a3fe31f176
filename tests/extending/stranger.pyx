# cython: language_level=3
"""Median of three fixed rows, called from C, and of a Rows object made in Python; and DETOX of six rows."""

from horovod_byz.kernels.dispatch cimport HB_MEAN, HB_UNDECIDED, HB_VOTE, HbStage
from horovod_byz.kernels.coordinate cimport median_f32
from horovod_byz.kernels.rows cimport Rows
from horovod_byz.kernels.vote cimport classes, voted_f32


def median_of_three(float[::1] a, float[::1] b, float[::1] c, float[::1] out):
    """out = coordinate-wise median of a, b, c, without the GIL and without a Rows object."""
    cdef const float *rows[3]
    cdef int status
    rows[0] = &a[0]
    rows[1] = &b[0]
    rows[2] = &c[0]
    with nogil:
        status = median_f32(rows, 3, a.shape[0], &out[0], 1)
    return status


def median_of_rows(Rows rows, float[::1] out):
    """The same for any Rows of float32."""
    return median_f32(<const float *const *>rows.pointers, rows.n, rows.d, &out[0], 2)


def equal_rows(Rows rows):
    """For each row of float32 the lowest row with the same bits."""
    cdef Py_ssize_t lowest[64]
    assert rows.n <= 64
    assert classes(rows.pointers, rows.n, rows.d * sizeof(float), lowest, 1) == 0
    return [lowest[i] for i in range(rows.n)]


def detox_of_six(Rows rows, float[::1] out):
    """out = mean of two votes of three replicas each; for each row the lowest of its group that equals it.

    None where a group has no majority.
    """
    cdef Py_ssize_t starts[3]
    cdef Py_ssize_t replicas[6]
    cdef Py_ssize_t whole[2]
    cdef Py_ssize_t votes[2]
    cdef Py_ssize_t lowest[6]  # `classes` wants n numbers of this type
    cdef HbStage stages[3]
    cdef int status
    starts[:] = [0, 3, 6]
    replicas[:] = [0, 1, 2, 3, 4, 5]
    whole[:] = [0, 2]
    votes[:] = [0, 1]
    assert rows.n == 6
    # &starts[0], not starts: Cython would copy an array to where the field points.
    stages[0] = HbStage(HB_VOTE, 0, 2, &starts[0], &replicas[0])
    stages[1] = HbStage(HB_MEAN, 0, 1, &whole[0], &votes[0])
    stages[2] = HbStage(HB_MEAN, 0, 1, NULL, NULL)
    with nogil:
        status = voted_f32(<const float *const *>rows.pointers, 6, rows.d, stages, 0, &out[0], lowest, 2)
    if status == HB_UNDECIDED:
        return None
    assert status == 0
    return [lowest[i] for i in range(6)]
