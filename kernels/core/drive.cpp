// The table of kernels that the Cython faces call, and the choice of the instruction set.
#include "drive.h"
#include "halves.h"
#include "mixing.h"
#include "statistics.h"
#include "voted.h"

namespace hb {

#define HB_DECLARE(NAME)                   \
  extern const Blocks<float> NAME##_f32;   \
  extern const Blocks<double> NAME##_f64;  \
  extern const Halves NAME##_f16;
#define HB_ENTRY(NAME) {#NAME, &NAME##_f32, &NAME##_f64}
HB_DECLARE(generic)
#if defined(__x86_64__) && defined(HB_DISPATCH)
HB_DECLARE(v2)
HB_DECLARE(avx2)
HB_DECLARE(avx512)
static const Level LEVELS[] = {HB_ENTRY(generic), HB_ENTRY(v2), HB_ENTRY(avx2), HB_ENTRY(avx512)};
static const Halves *const HALVES[] = {&generic_f16, &v2_f16, &avx2_f16, &avx512_f16};
static int best() { // must name every feature that setup.py compiles the level with
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("popcnt")) return 0; // -msse4.2 brings popcnt along
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 1;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? 3 : 2;
}
#else
static const Level LEVELS[] = {HB_ENTRY(generic)};
static const Halves *const HALVES[] = {&generic_f16};
static int best() { return 0; }
#endif

static const int BEST = best();
static int current = BEST;
const Level &level() { return LEVELS[current]; }
template <> const Blocks<float> *blocks<float>() { return LEVELS[current].f32; }
template <> const Blocks<double> *blocks<double>() { return LEVELS[current].f64; }

// One value per column, by the kernel RULE of Blocks.
template <class T, auto RULE> static int by_column(const T *const *rows, ptrdiff_t n, ptrdiff_t d, T *out, int threads) {
  return over_columns<T>(n, d, threads, [&](ptrdiff_t begin, ptrdiff_t end, Work<T> work) {
    (blocks<T>()->*RULE)(rows, n, begin, end, out, work);
  });
}
template <class T, auto RULE>
static int dropping(const T *const *rows, ptrdiff_t n, ptrdiff_t d, ptrdiff_t f, T *out, int threads) {
  return over_columns<T>(n, d, threads, [&](ptrdiff_t begin, ptrdiff_t end, Work<T> work) {
    (blocks<T>()->*RULE)(rows, n, begin, end, f, out, work);
  });
}
template <class T> constexpr auto median = by_column<T, &Blocks<T>::median>;
template <class T> constexpr auto trimmed_mean = dropping<T, &Blocks<T>::trimmed_mean>;
template <class T> constexpr auto mean_around_median = dropping<T, &Blocks<T>::mean_around_median>;
template <class T> constexpr auto phocas = dropping<T, &Blocks<T>::phocas>;
template <class T> constexpr auto sign_majority = by_column<T, &Blocks<T>::sign_majority>;

static int median_words(const uint16_t *const *rows, ptrdiff_t n, ptrdiff_t d, int brain, float *out, int threads) {
  const auto median = HALVES[current]->median;
  if (!median(rows, n, 0, 0, brain, out, {})) return HB_UNDECIDED;
  return over_columns<float>(n, d, threads, [&](ptrdiff_t begin, ptrdiff_t end, Work<float> work) {
    const Tail<uint16_t> tail = {reinterpret_cast<uint16_t *>(work.tail.values),
                                 reinterpret_cast<const uint16_t **>(work.tail.rows)};
    median(rows, n, begin, end, brain, out, tail);
  });
}

template <class T>
static int weighted_sum(const T *const *rows, ptrdiff_t n, ptrdiff_t d, const double *weights, T *out, int threads) {
  const Summands<T> sum(rows, n, weights);
  if (!sum.memory.start) return HB_NO_MEMORY;
  return over_columns<T>(sum.active, d, threads,
                         [&](ptrdiff_t begin, ptrdiff_t end, Work<T> work) { sum.add(begin, end, out, work); });
}

// Which rows are equal, by refining one partition tile by tile: a row is only compared with the representative of its
// class, so n equal rows are read once, and rows that all differ stop the pass at their first tile.
static void refine(const void *const *rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t *classes) {
  auto equal = [&](ptrdiff_t i, ptrdiff_t j) {
    return rows[i] == rows[j] || memcmp(static_cast<const char *>(rows[i]) + begin,
                                        static_cast<const char *>(rows[j]) + begin, end - begin) == 0;
  };
  for (ptrdiff_t i = 0; i < n; i++) {
    const ptrdiff_t old = classes[i];
    if (old == i || equal(i, old)) continue;
    // i leaves its class: it joins the lowest later row that left the same class in this tile, or founds a new one.
    // Rows before i that have left point at a founder k with k > old; -k - 1 marks where k came from.
    classes[i] = -old - 1;
  }
  for (ptrdiff_t i = 0; i < n; i++) {
    if (classes[i] >= 0) continue;
    const ptrdiff_t from = classes[i];
    classes[i] = i;
    for (ptrdiff_t k = i + 1; k < n; k++)
      if (classes[k] == from && equal(k, i)) classes[k] = i;
  }
}

static int classes(const void *const *rows, ptrdiff_t n, ptrdiff_t bytes, ptrdiff_t *out, int threads) {
  constexpr ptrdiff_t STEP = 4 * TILE, CHUNK = 16 * STEP;
  const ptrdiff_t chunks = (bytes + CHUNK - 1) / CHUNK;
  threads = team(threads, chunks);
  Memory memory(threads * n * sizeof(ptrdiff_t));
  if (!memory.start) return HB_NO_MEMORY;
  ptrdiff_t *all = static_cast<ptrdiff_t *>(memory.start);
  auto run = [&](ptrdiff_t k, ptrdiff_t *mine) {
    for (ptrdiff_t c = k * CHUNK; c < std::min(bytes, (k + 1) * CHUNK); c += STEP) {
      bool split = true;
      for (ptrdiff_t i = 0; i < n; i++) split = split && mine[i] == i;
      if (split) return;
      refine(rows, n, c, std::min(bytes, c + STEP), mine);
    }
  };
  if (threads == 1) {
    for (ptrdiff_t k = 0; k < chunks; k++) run(k, out);
    return HB_OK;
  }
  for (ptrdiff_t t = 0; t < threads; t++) memcpy(all + t * n, out, n * sizeof(ptrdiff_t));
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (ptrdiff_t k = 0; k < chunks; k++) run(k, all + omp_get_thread_num() * n);
  // Equal everywhere means equal in every thread's share.
  for (ptrdiff_t i = 0; i < n; i++) {
    out[i] = i;
    for (ptrdiff_t j = 0; j < i; j++) {
      bool equal = out[j] == j;
      for (ptrdiff_t t = 0; t < threads && equal; t++) equal = all[t * n + i] == all[t * n + j];
      if (equal) {
        out[i] = j;
        break;
      }
    }
  }
  return HB_OK;
}
int equal_rows(const void *const *rows, ptrdiff_t n, ptrdiff_t bytes, ptrdiff_t *out, int threads) {
  for (ptrdiff_t i = 0; i < n; i++) out[i] = 0;
  return classes(rows, n, bytes, out, threads);
}

// count(row, begin, end) summed over each row's columns, row after row in long runs, as a memory controller likes it
// best.  Whole numbers: the order of the sum cannot be seen.
template <class T, class Count>
static void count_rows(const T *const *rows, ptrdiff_t n, ptrdiff_t d, int64_t *out, int threads, Count count) {
  constexpr ptrdiff_t CHUNK = 64 * TILE;
  const ptrdiff_t chunks = (d + CHUNK - 1) / CHUNK;
  threads = team(threads, chunks);
  for (ptrdiff_t i = 0; i < n; i++) out[i] = 0;
  auto run = [&](ptrdiff_t i, ptrdiff_t k) { return count(rows[i], k * CHUNK, std::min(d, (k + 1) * CHUNK)); };
  if (threads == 1) {
    for (ptrdiff_t i = 0; i < n; i++)
      for (ptrdiff_t k = 0; k < chunks; k++) out[i] += run(i, k);
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (ptrdiff_t k = 0; k < chunks; k++)
    for (ptrdiff_t i = 0; i < n; i++) {
      const int64_t found = run(i, k);
#pragma omp atomic
      out[i] += found;
    }
}
template <class T> static int nonfinite(const T *const *rows, ptrdiff_t n, ptrdiff_t d, int64_t *out, int threads) {
  count_rows(rows, n, d, out, threads, blocks<T>()->nonfinite_count);
  return HB_OK;
}
template <class T> static int checksum(const T *const *rows, ptrdiff_t n, ptrdiff_t d, int64_t *out, int threads) {
  count_rows(rows, n, d, out, threads, blocks<T>()->checksum);
  for (ptrdiff_t i = 0; i < n; i++) out[i] &= 0xffffffff;
  return HB_OK;
}

static int bit_majority(const uint8_t *const *rows, ptrdiff_t n, ptrdiff_t bytes, uint8_t *negative, uint8_t *tied,
                        int threads) {
  constexpr ptrdiff_t CHUNK = 2 * TILE;
  const ptrdiff_t chunks = (bytes + CHUNK - 1) / CHUNK;
  threads = team(threads, chunks);
  auto run = [&](ptrdiff_t k) {
    blocks<float>()->bit_majority(rows, n, k * CHUNK, std::min(bytes, (k + 1) * CHUNK), negative, tied);
  };
  if (threads == 1) {
    for (ptrdiff_t k = 0; k < chunks; k++) run(k);
    return HB_OK;
  }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (ptrdiff_t k = 0; k < chunks; k++) run(k);
  return HB_OK;
}
static int bit_differences(const uint8_t *const *rows, ptrdiff_t n, ptrdiff_t bytes, const uint8_t *point,
                           const uint8_t *mask, int64_t *out, int threads) {
  count_rows(rows, n, bytes, out, threads, [&](const uint8_t *row, ptrdiff_t begin, ptrdiff_t end) {
    return blocks<float>()->bit_difference(row, point, mask, begin, end);
  });
  return HB_OK;
}

static int levels() { return BEST + 1; }
static const char *level_name(int index) { return LEVELS[index].name; }
static int level_index() { return current; }
static int set_level(int index) {
  if (index < 0 || index > BEST) return -1;
  current = index;
  return HB_OK;
}

#define HB_FUNCTION(RESULT, FIELD, FUNCTION, ARGUMENTS) FUNCTION,
static const HbKernels TABLE = {HB_TABLE(HB_FUNCTION)};

}  // namespace hb

extern "C" const HbKernels *hb_kernels(void) { return &hb::TABLE; }
