/* The C interface of the compiled kernels: one struct of functions, found through horovod_byz.kernels.dispatch.
 *
 * `rows` holds n pointers to d contiguous values each; inputs are const, outputs come last; no function touches a
 * Python object.  Results do not depend on `threads` or on the instruction set.  Every function returns HB_OK, or
 * HB_NO_MEMORY when its workspace (which does not grow with d) could not be had: then nothing was written.
 */
#ifndef HOROVOD_BYZ_KERNELS_H
#define HOROVOD_BYZ_KERNELS_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HB_OK = 0, HB_NO_MEMORY = -1 };

/* rows, n, d, [parameters], output, threads */
#define HB_TABLE(X)                                                                                                    \
  int (*median_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, HB_T *, int);                                           \
  int (*trimmed_mean_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, ptrdiff_t f, HB_T *, int);                        \
  int (*mean_around_median_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, ptrdiff_t f, HB_T *, int);                  \
  int (*sign_majority_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, HB_T *, int);                                    \
  int (*weighted_sum_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, const double *weights, HB_T *, int);              \
  int (*squared_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, double *n_by_n, int);                                  \
  int (*gram_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, double *n_by_n, int);                                     \
  int (*to_point_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, const HB_T *point, double *n_values, int);            \
  int (*brsgd_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, int64_t *scores, double *l1, int);                       \
  int (*nonfinite_##X)(const HB_T *const *, ptrdiff_t, ptrdiff_t, int64_t *n_values, int);

typedef struct HbKernels {
#define HB_T float
  HB_TABLE(f32)
#undef HB_T
#define HB_T double
  HB_TABLE(f64)
#undef HB_T
  /* classes[i] = lowest row whose bytes equal those of row i */
  int (*classes)(const void *const *, ptrdiff_t n, ptrdiff_t bytes, ptrdiff_t *classes, int threads);
  int (*levels)(void);             /* how many instruction sets this machine can run, slowest first */
  const char *(*level_name)(int);  /* of one of them */
  int (*level)(void);              /* the one in use */
  int (*set_level)(int);           /* HB_OK, or -1 when there is no such level */
} HbKernels;

const HbKernels *hb_kernels(void);

#ifdef __cplusplus
}
#endif
#endif
