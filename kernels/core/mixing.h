// Mixtures of rows, written out, or as the rows of a coordinate-wise rule: then block by block, in level-1 cache.
#pragma once
#include "drive.h"

namespace hb {

// One thread's room for k mixtures of n rows.
template <class T> struct Mixtures {
  T *table, *spare;      // sums of subsets; k vectors
  T *values;             // k x MIX_STRIDE
  const T **rows;        // k, each a row of `values`
  Work<T> below, above;  // for n rows, for k rows
};
constexpr ptrdiff_t MIX_STEP = BLOCK; // columns of a block
// A cache line more than a block: rows at a distance of 1 KiB would share few sets of the cache.
template <class T> constexpr ptrdiff_t MIX_STRIDE = MIX_STEP + LANES<T>;

template <class T> Mixtures<T> take_mixtures(Arena &arena, ptrdiff_t n, ptrdiff_t k) {
  Mixtures<T> m;
  m.table = arena.take<T>(((n + MIXED - 1) / MIXED << MIXED) * MIX_SIDE * LANES<T>);
  m.spare = arena.take<T>(k * LANES<T>);
  m.values = arena.take<T>(k * MIX_STRIDE<T>);
  m.rows = arena.take<const T *>(k);
  m.below = take_work<T>(arena, n);
  m.above = take_work<T>(arena, k);
  if (m.rows)
    for (ptrdiff_t i = 0; i < k; i++) m.rows[i] = m.values + i * MIX_STRIDE<T>;
  return m;
}

// body(begin, end, mixtures) over all columns, at most `step` at a time.
template <class T, class Body>
int over_mixtures(ptrdiff_t n, ptrdiff_t k, ptrdiff_t d, ptrdiff_t step, int threads, Body body) {
  constexpr ptrdiff_t CHUNK = 8 * TILE;
  const ptrdiff_t chunks = (d + CHUNK - 1) / CHUNK;
  threads = team(threads, chunks);
  Arena measure(nullptr);
  take_mixtures<T>(measure, n, k);
  Memory memory(measure.used * threads);
  if (!memory.start) return HB_NO_MEMORY;
  auto room = [&](int thread) {
    Arena arena(static_cast<char *>(memory.start) + measure.used * thread);
    return take_mixtures<T>(arena, n, k);
  };
  auto run = [&](ptrdiff_t chunk, const Mixtures<T> &m) {
    const ptrdiff_t end = std::min(d, (chunk + 1) * CHUNK);
    for (ptrdiff_t c = chunk * CHUNK; c < end; c += step) body(c, std::min(end, c + step), m);
  };
  if (threads == 1) {
    const Mixtures<T> m = room(0);
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) run(chunk, m);
    return HB_OK;
  }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) run(chunk, room(omp_get_thread_num()));
  return HB_OK;
}

// Mixture i is weights[i] times the sum of the rows 4 g + j with bit j set in subset[g k + i].
template <class T>
int mixed(const T *const *rows, ptrdiff_t n, ptrdiff_t d, ptrdiff_t k, const double *weights, const uint8_t *subset, T *out,
          int threads) {
  return over_mixtures<T>(n, k, d, 8 * TILE, threads, [&](ptrdiff_t begin, ptrdiff_t end, const Mixtures<T> &m) {
    blocks<T>()->mixed(rows, n, begin, end, k, weights, subset, m.table, m.spare, m.below.tail, out + begin, d);
  });
}

template <class T>
int mixed_rule(const T *const *rows, ptrdiff_t n, ptrdiff_t d, ptrdiff_t k, const double *weights, const uint8_t *subset,
               int rule, ptrdiff_t f, T *out, int threads) {
  return over_mixtures<T>(n, k, d, MIX_STEP, threads, [&](ptrdiff_t begin, ptrdiff_t end, const Mixtures<T> &m) {
    const Blocks<T> *kernels = blocks<T>();
    kernels->mixed(rows, n, begin, end, k, weights, subset, m.table, m.spare, m.below.tail, m.values, MIX_STRIDE<T>);
    const ptrdiff_t width = end - begin;
    switch (rule) {
      case HB_MEDIAN: kernels->median(m.rows, k, 0, width, out + begin, m.above); break;
      case HB_TRIMMED_MEAN: kernels->trimmed_mean(m.rows, k, 0, width, f, out + begin, m.above); break;
      case HB_MEAN_AROUND_MEDIAN: kernels->mean_around_median(m.rows, k, 0, width, f, out + begin, m.above); break;
      case HB_PHOCAS: kernels->phocas(m.rows, k, 0, width, f, out + begin, m.above); break;
      default: kernels->sign_majority(m.rows, k, 0, width, out + begin, m.above);
    }
  });
}

}  // namespace hb
