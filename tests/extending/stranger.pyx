# cython: language_level=3
"""Median of three fixed rows, called from C, and of a Rows object made in Python."""

from horovod_byz.kernels.coordinate cimport median_f32
from horovod_byz.kernels.rows cimport Rows


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
