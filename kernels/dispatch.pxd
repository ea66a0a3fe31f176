# The table of compiled kernels for the instruction set in use.
# C users include horovod_byz/kernels/core/kernels.h, which also documents each function: get_include() is the
# folder for Cython's include path and for the C compiler's alike. A kernel that is newer than those below is called
# through the .pxd of its module, or from C.

from libc.stdint cimport int64_t, uint8_t


# The second path is that of our own build, and of projects that put the folder of this file on the C path.
cdef extern from * nogil:
    """
    #ifdef __has_include
    #if __has_include("horovod_byz/kernels/core/kernels.h")
    #include "horovod_byz/kernels/core/kernels.h"
    #endif
    #endif
    #ifndef HOROVOD_BYZ_KERNELS_H
    #include "core/kernels.h"
    #endif
    """
    enum:
        HB_UNDECIDED
        HB_VOTE
        HB_MEAN
        HB_MEDIAN
        HB_TRIMMED_MEAN
        HB_MEAN_AROUND_MEDIAN
        HB_SIGN_MAJORITY
        HB_PHOCAS

    ctypedef struct HbStage:
        int rule
        Py_ssize_t f
        Py_ssize_t groups
        const Py_ssize_t *start
        const Py_ssize_t *member

    ctypedef struct HbKernels:
        int (*median_f32)(const float *const *, Py_ssize_t, Py_ssize_t, float *, int) noexcept nogil
        int (*median_f64)(const double *const *, Py_ssize_t, Py_ssize_t, double *, int) noexcept nogil
        int (*trimmed_mean_f32)(const float *const *, Py_ssize_t, Py_ssize_t, Py_ssize_t, float *,
                                int) noexcept nogil
        int (*trimmed_mean_f64)(const double *const *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double *,
                                int) noexcept nogil
        int (*mean_around_median_f32)(const float *const *, Py_ssize_t, Py_ssize_t, Py_ssize_t, float *,
                                      int) noexcept nogil
        int (*mean_around_median_f64)(const double *const *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double *,
                                      int) noexcept nogil
        int (*sign_majority_f32)(const float *const *, Py_ssize_t, Py_ssize_t, float *, int) noexcept nogil
        int (*sign_majority_f64)(const double *const *, Py_ssize_t, Py_ssize_t, double *, int) noexcept nogil
        int (*weighted_sum_f32)(const float *const *, Py_ssize_t, Py_ssize_t, const double *, float *,
                                int) noexcept nogil
        int (*weighted_sum_f64)(const double *const *, Py_ssize_t, Py_ssize_t, const double *, double *,
                                int) noexcept nogil
        int (*squared_f32)(const float *const *, Py_ssize_t, Py_ssize_t, double *, int) noexcept nogil
        int (*squared_f64)(const double *const *, Py_ssize_t, Py_ssize_t, double *, int) noexcept nogil
        int (*gram_f32)(const float *const *, Py_ssize_t, Py_ssize_t, double *, int) noexcept nogil
        int (*gram_f64)(const double *const *, Py_ssize_t, Py_ssize_t, double *, int) noexcept nogil
        int (*to_point_f32)(const float *const *, Py_ssize_t, Py_ssize_t, const float *, double *,
                            int) noexcept nogil
        int (*to_point_f64)(const double *const *, Py_ssize_t, Py_ssize_t, const double *, double *,
                            int) noexcept nogil
        int (*brsgd_f32)(const float *const *, Py_ssize_t, Py_ssize_t, int64_t *, double *,
                         int) noexcept nogil
        int (*brsgd_f64)(const double *const *, Py_ssize_t, Py_ssize_t, int64_t *, double *,
                         int) noexcept nogil
        int (*nonfinite_f32)(const float *const *, Py_ssize_t, Py_ssize_t, int64_t *, int) noexcept nogil
        int (*nonfinite_f64)(const double *const *, Py_ssize_t, Py_ssize_t, int64_t *, int) noexcept nogil
        int (*classes)(const void *const *, Py_ssize_t, Py_ssize_t, Py_ssize_t *, int) noexcept nogil
        int (*levels)() noexcept nogil
        const char *(*level_name)(int) noexcept nogil
        int (*level)() noexcept nogil
        int (*set_level)(int) noexcept nogil
        int (*checksum_f32)(const float *const *, Py_ssize_t, Py_ssize_t, int64_t *, int) noexcept nogil
        int (*checksum_f64)(const double *const *, Py_ssize_t, Py_ssize_t, int64_t *, int) noexcept nogil
        int (*voted_f32)(const float *const *, Py_ssize_t, Py_ssize_t, const HbStage *, int, float *,
                         Py_ssize_t *, int) noexcept nogil
        int (*voted_f64)(const double *const *, Py_ssize_t, Py_ssize_t, const HbStage *, int, double *,
                         Py_ssize_t *, int) noexcept nogil
        int (*bit_majority)(const uint8_t *const *, Py_ssize_t, Py_ssize_t, uint8_t *, uint8_t *,
                            int) noexcept nogil
        int (*bit_differences)(const uint8_t *const *, Py_ssize_t, Py_ssize_t, const uint8_t *,
                               const uint8_t *, int64_t *, int) noexcept nogil


# The table; it lives as long as the process.
cdef const HbKernels *kernels() noexcept nogil
