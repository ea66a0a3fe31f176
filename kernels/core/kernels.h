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

enum { HB_OK = 0, HB_NO_MEMORY = -1, HB_UNDECIDED = 1 };

/* One stage of a pipeline: a rule inside each of `groups` groups of what the stage before gave. Group g holds
 * member[start[g]] .. member[start[g + 1] - 1]; rule HB_VOTE elects the row that a strict majority equals bit for bit. */
enum { HB_VOTE = 0, HB_MEAN, HB_MEDIAN, HB_TRIMMED_MEAN, HB_MEAN_AROUND_MEDIAN, HB_SIGN_MAJORITY };
typedef struct HbStage {
  int rule;
  ptrdiff_t f;
  ptrdiff_t groups;
  const ptrdiff_t *start;
  const ptrdiff_t *member;
} HbStage;

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
  /* n sums, modulo 2^32, of the 32-bit words of each row: each value is read once and nothing else is done */
  int (*checksum_f32)(const float *const *, ptrdiff_t, ptrdiff_t, int64_t *n_values, int);
  int (*checksum_f64)(const double *const *, ptrdiff_t, ptrdiff_t, int64_t *n_values, int);
  /* Three stages in one pass: a vote, a rule in each part of the elected rows, and a rule over the parts' results.
   * lazy: replicas beyond a majority that agrees are not read. classes[i]: lowest row of its group that equals row i,
   * -1 where it was not read. HB_UNDECIDED: a group without a majority, or a mean of values that are not finite; then
   * `out` holds nothing of use. Where `out` is null only the vote is held, and never undecided. */
  int (*voted_f32)(const float *const *, ptrdiff_t, ptrdiff_t, const HbStage *, int lazy, float *, ptrdiff_t *classes, int);
  int (*voted_f64)(const double *const *, ptrdiff_t, ptrdiff_t, const HbStage *, int lazy, double *, ptrdiff_t *classes, int);
  /* Signs packed into `bytes` bytes per row, a set bit for a negative one. Bits of more than half of the rows, and of
   * exactly half of them. */
  int (*bit_majority)(const uint8_t *const *, ptrdiff_t n, ptrdiff_t bytes, uint8_t *negative, uint8_t *tied, int);
  /* n numbers of bits in which a row differs from `point` where `mask` is set */
  int (*bit_differences)(const uint8_t *const *, ptrdiff_t n, ptrdiff_t bytes, const uint8_t *point, const uint8_t *mask,
                         int64_t *n_values, int);
} HbKernels;

const HbKernels *hb_kernels(void);

#ifdef __cplusplus
}
#endif
#endif
