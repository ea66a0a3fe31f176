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
enum { HB_VOTE = 0, HB_MEAN, HB_MEDIAN, HB_TRIMMED_MEAN, HB_MEAN_AROUND_MEDIAN, HB_SIGN_MAJORITY, HB_PHOCAS };
typedef struct HbStage {
  int rule;
  ptrdiff_t f;
  ptrdiff_t groups;
  const ptrdiff_t *start;
  const ptrdiff_t *member;
} HbStage;

/* The functions' arguments for rows of T, by shape: rows, n, d, [parameters], output, threads. */
#define HB_ARGS_RULE(T) (const T *const *rows, ptrdiff_t n, ptrdiff_t d, T *out, int threads)
#define HB_ARGS_DROPPING(T) (const T *const *rows, ptrdiff_t n, ptrdiff_t d, ptrdiff_t f, T *out, int threads)
#define HB_ARGS_WEIGHTED(T) (const T *const *rows, ptrdiff_t n, ptrdiff_t d, const double *weights, T *out, int threads)
#define HB_ARGS_PAIRS(T) (const T *const *rows, ptrdiff_t n, ptrdiff_t d, double *n_by_n, int threads)
#define HB_ARGS_TO_POINT(T) (const T *const *rows, ptrdiff_t n, ptrdiff_t d, const T *point, double *n_values, int threads)
#define HB_ARGS_LENGTHS(T) (const T *const *rows, ptrdiff_t n, ptrdiff_t d, const T *point, double *twice, int threads)
#define HB_ARGS_COMBINED(T)                                                                                          \
  (const T *const *rows, ptrdiff_t n, ptrdiff_t d, int rule, ptrdiff_t f, const double *weights, T *out, double *twice, \
   int threads)
#define HB_ARGS_MIXED(T)                                                                                          \
  (const T *const *rows, ptrdiff_t n, ptrdiff_t d, ptrdiff_t k, const double *weights, const uint8_t *subset, T *out, \
   int threads)
#define HB_ARGS_MIXED_RULE(T)                                                                                       \
  (const T *const *rows, ptrdiff_t n, ptrdiff_t d, ptrdiff_t k, const double *weights, const uint8_t *subset, int rule, \
   ptrdiff_t f, T *out, int threads)
#define HB_ARGS_BRSGD(T) (const T *const *rows, ptrdiff_t n, ptrdiff_t d, int64_t *scores, double *l1, int threads)
#define HB_ARGS_COUNTS(T) (const T *const *rows, ptrdiff_t n, ptrdiff_t d, int64_t *n_values, int threads)
#define HB_ARGS_STAGES(T) \
  (const T *const *rows, ptrdiff_t n, ptrdiff_t d, const HbStage *, int lazy, T *out, ptrdiff_t *classes, int threads)

/* The table's functions in their order, as X(result, field, C++ function, arguments). Compiled projects rely on that
 * order: a new kernel is appended to HB_TABLE, as HB_BOTH(X, name, arguments) when it has a function for each dtype.
 *
 *   classes   classes[i] = lowest row whose bytes equal those of row i
 *   levels, level_name, level, set_level   how many instruction sets this machine can run, slowest first; the name of
 *             one of them; the one in use; HB_OK, or -1 when there is no such level
 *   checksum  n sums, modulo 2^32, of the 32-bit words of each row: each value is read once and nothing else is done
 *   voted     three stages in one pass: a vote, a rule in each part of the elected rows, and a rule over the parts'
 *             results. lazy: replicas beyond a majority that agrees are not read. classes[i]: lowest row of its group
 *             that equals row i, -1 where it was not read. HB_UNDECIDED: a group without a majority, or a mean of
 *             values that are not finite; then `out` holds nothing of use. Where `out` is null only the vote is held,
 *             and never undecided.
 *   to_point_and_norms  2 (n + 1) sums: squared distances to `point` of the rows and of itself, 0; squared norms of them
 *   combined  a rule's result, and these sums with the result as the point, tile by tile while the rows are in cache.
 *             HB_MEAN: the sum of rows with `weights`, which no other rule reads
 *   mixed     k rows, each a weight times a sum of rows: see mixing.pxd. mixed_rule: a rule over them
 *   bit_majority     signs packed into `bytes` bytes per row, a set bit for a negative one: bits of more than half of
 *             the rows, and of exactly half of them
 *   median_words     of rows of 16 bits, bfloat16 where `brain`, else float16. HB_UNDECIDED: the level in use has no network
 *             of n rows; then nothing was written
 *   bit_differences  n numbers of bits in which a row differs from `point` where `mask` is set */
#define HB_FIRST(X, T, DTYPE)                                                       \
  X(int, median_##DTYPE, median<T>, HB_ARGS_RULE(T))                                \
  X(int, trimmed_mean_##DTYPE, trimmed_mean<T>, HB_ARGS_DROPPING(T))                \
  X(int, mean_around_median_##DTYPE, mean_around_median<T>, HB_ARGS_DROPPING(T))    \
  X(int, sign_majority_##DTYPE, sign_majority<T>, HB_ARGS_RULE(T))                  \
  X(int, weighted_sum_##DTYPE, weighted_sum<T>, HB_ARGS_WEIGHTED(T))                \
  X(int, squared_##DTYPE, squared<T>, HB_ARGS_PAIRS(T))                             \
  X(int, gram_##DTYPE, gram<T>, HB_ARGS_PAIRS(T))                                   \
  X(int, to_point_##DTYPE, to_point<T>, HB_ARGS_TO_POINT(T))                        \
  X(int, brsgd_##DTYPE, brsgd<T>, HB_ARGS_BRSGD(T))                                 \
  X(int, nonfinite_##DTYPE, nonfinite<T>, HB_ARGS_COUNTS(T))
#define HB_BOTH(X, NAME, ARGS)                      \
  X(int, NAME##_f32, NAME<float>, ARGS(float))      \
  X(int, NAME##_f64, NAME<double>, ARGS(double))
#define HB_TABLE(X)                                                                                                    \
  HB_FIRST(X, float, f32)                                                                                              \
  HB_FIRST(X, double, f64)                                                                                             \
  X(int, classes, equal_rows, (const void *const *rows, ptrdiff_t n, ptrdiff_t bytes, ptrdiff_t *classes, int threads)) \
  X(int, levels, levels, (void))                                                                                       \
  X(const char *, level_name, level_name, (int))                                                                       \
  X(int, level, level_index, (void))                                                                                   \
  X(int, set_level, set_level, (int))                                                                                  \
  HB_BOTH(X, checksum, HB_ARGS_COUNTS)                                                                                 \
  HB_BOTH(X, voted, HB_ARGS_STAGES)                                                                                    \
  X(int, bit_majority, bit_majority, (const uint8_t *const *rows, ptrdiff_t n, ptrdiff_t bytes, uint8_t *negative,      \
                                      uint8_t *tied, int threads))                                                     \
  X(int, bit_differences, bit_differences, (const uint8_t *const *rows, ptrdiff_t n, ptrdiff_t bytes,                  \
                                            const uint8_t *point, const uint8_t *mask, int64_t *n_values, int threads)) \
  HB_BOTH(X, to_point_and_norms, HB_ARGS_LENGTHS)                                                                      \
  HB_BOTH(X, combined, HB_ARGS_COMBINED)                                                                               \
  HB_BOTH(X, phocas, HB_ARGS_DROPPING)                                                                                 \
  HB_BOTH(X, mixed, HB_ARGS_MIXED)                                                                                     \
  HB_BOTH(X, mixed_rule, HB_ARGS_MIXED_RULE)                                                                           \
  X(int, median_words, median_words, (const uint16_t *const *rows, ptrdiff_t n, ptrdiff_t d, int brain, float *out,      \
                                    int threads))

typedef struct HbKernels {
#define HB_FIELD(RESULT, FIELD, FUNCTION, ARGUMENTS) RESULT (*FIELD) ARGUMENTS;
  HB_TABLE(HB_FIELD)
#undef HB_FIELD
} HbKernels;

const HbKernels *hb_kernels(void);

#ifdef __cplusplus
}
#endif
#endif
