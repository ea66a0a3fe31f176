// Statistics over columns: one tile at a time, float32 lanes first, float64 where float32 lost the value.
#pragma once
#include <cmath>

#include "drive.h"

namespace hb {

// One thread's scratch for statistics of a tile.
template <class T> struct Scratch {
  double *lanes;       // LANES per statistic
  const T **block;     // n pointers to the block's start
  const T **next;      // n pointers to where the one after it starts
  T *padded;           // n x PAIRS: the last block beside zeros
  T *middle;           // TILE: medians
  T *point;            // PAIRS
  typename Key<T>::type *counts; // LANES for each of n rows
  double *scale;       // n
  double *second;      // one per statistic
  Work<T> work;
};
template <class T> Scratch<T> take_scratch(Arena &arena, ptrdiff_t n, ptrdiff_t statistics, bool twice) {
  Scratch<T> s;
  s.lanes = arena.take<double>(statistics * LANES<T>);
  s.block = arena.take<const T *>(n);
  s.next = arena.take<const T *>(n);
  s.padded = arena.take<T>(n * PAIRS);
  s.middle = arena.take<T>(TILE);
  s.point = arena.take<T>(PAIRS);
  s.counts = arena.take<typename Key<T>::type>(n * LANES<T>);
  s.scale = arena.take<double>(n);
  s.second = twice ? arena.take<double>(statistics) : nullptr;
  s.work = take_work<T>(arena, n);
  return s;
}

// body(column, width, padding) for each BLOCK columns of a tile, s.block pointing at them.  The last block is copied beside zeros up to a
// multiple of the lanes: zeros add nothing to any of the sums.
template <class T, ptrdiff_t BLOCK, class Body>
void over_blocks(const T *const *rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, const Scratch<T> &s, Body body) {
  for (ptrdiff_t c = begin; c < end; c += BLOCK) {
    const ptrdiff_t width = std::min(BLOCK, end - c), full = (width + LANES<T> - 1) / LANES<T> * LANES<T>;
    for (ptrdiff_t i = 0; i < n; i++) {
      s.block[i] = rows[i] + c;
      s.next[i] = rows[i] + std::min(c + BLOCK, end);
      if (full == width) continue;
      T *copy = s.padded + i * BLOCK;
      memcpy(copy, rows[i] + c, width * sizeof(T));
      memset(copy + width, 0, (full - width) * sizeof(T));
      s.block[i] = copy;
    }
    body(c, full, full - width);
  }
}

// term(column) summed over [begin, end) in float64, in the same lanes as the fast path.
template <class T, class Term> double exact(ptrdiff_t begin, ptrdiff_t end, Term term) {
  double lanes[LANES<T>] = {};
  for (ptrdiff_t c = begin; c < end; c += LANES<T>)
    for (ptrdiff_t i = 0; i < std::min<ptrdiff_t>(LANES<T>, end - c); i++) lanes[i] += term(c + i);
  return horizontal<T>(lanes);
}

// Float32 lanes lose squares above 3e38 and below 1e-38: a tile's sum outside these bounds is computed again.
constexpr double TOO_SMALL = 0x1p-80;
inline bool lost(double sum) { return !std::isfinite(sum) || sum < TOO_SMALL; }
// A distance to or from NaN is infinite: such a row is nobody's neighbour, and no NaN reaches an argmin.
inline double or_infinite(double sum) { return std::isnan(sum) ? HUGE_VAL : sum; }

template <class T> bool same(const T *a, const T *b, ptrdiff_t begin, ptrdiff_t end) {
  return a == b || memcmp(a + begin, b + begin, (end - begin) * sizeof(T)) == 0;
}
// The squared distance of two rows over a tile, given the fast path's sum.  Equal bits of NaN or Inf are infinitely
// apart too.
template <class T> double settle(double sum, const T *a, const T *b, ptrdiff_t begin, ptrdiff_t end) {
  if (!lost(sum) || (sum == 0 && same(a, b, begin, end))) return sum;
  double lanes[LANES<T>] = {};
  blocks<T>()->squared_wide(a, b, begin, end, lanes);
  return or_infinite(horizontal<T>(lanes));
}

template <class T> int squared(const T *const *rows, ptrdiff_t n, ptrdiff_t d, double *out, int threads) {
  const ptrdiff_t pairs = n * (n - 1) / 2;
  Memory packed(pairs * sizeof(double));
  if (!packed.start) return HB_NO_MEMORY;
  double *sums = static_cast<double *>(packed.start);
  const int status = over_tiles(
      d, pairs, threads, sums, [&](Arena &arena) { return take_scratch<T>(arena, n, pairs, false); },
      [&](ptrdiff_t begin, ptrdiff_t end, double *result, const Scratch<T> &s) {
        memset(s.lanes, 0, pairs * LANES<T> * sizeof(double));
        over_blocks<T, PAIRS>(rows, n, begin, end, s, [&](ptrdiff_t, ptrdiff_t width, ptrdiff_t) {
          blocks<T>()->squared(s.block, n, width, s.next, s.lanes);
        });
        blocks<T>()->reduce(s.lanes, pairs, result);
        for (ptrdiff_t i = 0, k = 0; i < n; i++)
          for (ptrdiff_t j = i + 1; j < n; j++, k++) result[k] = settle(result[k], rows[i], rows[j], begin, end);
      });
  if (status != HB_OK) return status;
  for (ptrdiff_t i = 0, k = 0; i < n; i++) {
    out[i * n + i] = 0;
    for (ptrdiff_t j = i + 1; j < n; j++, k++) out[i * n + j] = out[j * n + i] = sums[k];
  }
  return HB_OK;
}

template <class T>
int to_point(const T *const *rows, ptrdiff_t n, ptrdiff_t d, const T *point, double *out, int threads) {
  return over_tiles(
      d, n, threads, out, [&](Arena &arena) { return take_scratch<T>(arena, n, n, false); },
      [&](ptrdiff_t begin, ptrdiff_t end, double *result, const Scratch<T> &s) {
        memset(s.lanes, 0, n * LANES<T> * sizeof(double));
        over_blocks<T, BLOCK>(rows, n, begin, end, s, [&](ptrdiff_t c, ptrdiff_t width, ptrdiff_t padding) {
          memcpy(s.point, point + c, (width - padding) * sizeof(T));
          memset(s.point + width - padding, 0, padding * sizeof(T));
          blocks<T>()->to_point(s.block, n, width, s.point, s.lanes);
        });
        blocks<T>()->reduce(s.lanes, n, result);
        for (ptrdiff_t i = 0; i < n; i++) result[i] = settle(result[i], rows[i], point, begin, end);
      });
}

// A tile's sums: squared distances of n rows to a point and 0, then squared norms of the rows and of the point.
template <class T>
void lengths(const T *const *rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, const T *point, double *result,
             const Scratch<T> &s) {
  const T *const origin = s.middle;  // zeros: nobody writes medians here
  memset(s.lanes, 0, 2 * (n + 1) * LANES<T> * sizeof(double));
  over_blocks<T, BLOCK>(rows, n, begin, end, s, [&](ptrdiff_t c, ptrdiff_t width, ptrdiff_t padding) {
    const T *here = point + c;
    if (padding) {
      memcpy(s.point, here, (width - padding) * sizeof(T));
      memset(s.point + width - padding, 0, padding * sizeof(T));
      here = s.point;
    }
    blocks<T>()->to_point_and_norms(s.block, n, width, here, s.lanes);
  });
  blocks<T>()->reduce(s.lanes, 2 * (n + 1), result);
  for (ptrdiff_t i = 0; i <= n; i++) {
    const T *const row = i < n ? rows[i] : point;
    result[i] = i < n ? settle(result[i], row, point, begin, end) : 0;
    result[n + 1 + i] = settle(result[n + 1 + i], row + begin, origin, 0, end - begin);
  }
}

template <class T>
int to_point_and_norms(const T *const *rows, ptrdiff_t n, ptrdiff_t d, const T *point, double *out, int threads) {
  const ptrdiff_t count = 2 * (n + 1);
  return over_tiles(
      d, count, threads, out, [&](Arena &arena) { return take_scratch<T>(arena, n, count, false); },
      [&](ptrdiff_t begin, ptrdiff_t end, double *result, const Scratch<T> &s) {
        lengths(rows, n, begin, end, point, result, s);
      });
}

// A rule, and the lengths with its result as the point: each tile's rows are read a second time from a cache.
template <class T>
int combined(const T *const *rows, ptrdiff_t n, ptrdiff_t d, int rule, ptrdiff_t f, const double *weights, T *out,
             double *twice, int threads) {
  const ptrdiff_t count = 2 * (n + 1);
  const Summands<T> sum(rows, rule == HB_MEAN ? n : 0, weights);
  if (!sum.memory.start) return HB_NO_MEMORY;
  return over_tiles(
      d, count, threads, twice, [&](Arena &arena) { return take_scratch<T>(arena, n, count, false); },
      [&](ptrdiff_t begin, ptrdiff_t end, double *result, const Scratch<T> &s) {
        const Blocks<T> *const kernels = blocks<T>();
        switch (rule) {
          case HB_MEDIAN: kernels->median(rows, n, begin, end, out, s.work); break;
          case HB_TRIMMED_MEAN: kernels->trimmed_mean(rows, n, begin, end, f, out, s.work); break;
          case HB_MEAN_AROUND_MEDIAN: kernels->mean_around_median(rows, n, begin, end, f, out, s.work); break;
          case HB_PHOCAS: kernels->phocas(rows, n, begin, end, f, out, s.work); break;
          case HB_SIGN_MAJORITY: kernels->sign_majority(rows, n, begin, end, out, s.work); break;
          default: sum.add(begin, end, out, s.work);
        }
        lengths(rows, n, begin, end, out, result, s);
      });
}

template <class T> int gram(const T *const *rows, ptrdiff_t n, ptrdiff_t d, double *out, int threads) {
  const ptrdiff_t pairs = n * (n + 1) / 2;
  Memory packed(pairs * sizeof(double));
  if (!packed.start) return HB_NO_MEMORY;
  double *sums = static_cast<double *>(packed.start);
  const int status = over_tiles(
      d, pairs, threads, sums, [&](Arena &arena) { return take_scratch<T>(arena, n, pairs, true); },
      [&](ptrdiff_t begin, ptrdiff_t end, double *result, const Scratch<T> &s) {
        memset(s.lanes, 0, pairs * LANES<T> * sizeof(double));
        over_blocks<T, PAIRS>(rows, n, begin, end, s, [&](ptrdiff_t c, ptrdiff_t width, ptrdiff_t padding) {
          T *middle = s.middle + (c - begin);
          blocks<T>()->median(s.block, n, 0, width - padding, middle, s.work);
          memcpy(s.point, middle, (width - padding) * sizeof(T));
          memset(s.point + width - padding, 0, padding * sizeof(T));
          blocks<T>()->products(s.block, n, width, s.next, s.point, s.lanes);
        });
        blocks<T>()->reduce(s.lanes, pairs, s.second);
        auto product = [&](ptrdiff_t i, ptrdiff_t j) {
          return exact<T>(begin, end, [&](ptrdiff_t c) {
            const double m = s.middle[c - begin];
            return (static_cast<double>(rows[i][c]) - m) * (static_cast<double>(rows[j][c]) - m);
          });
        };
        // A row whose own sum float32 lost is multiplied again with every other; an exactly central row is 0 anyway.
        auto packed_at = [&](ptrdiff_t i, ptrdiff_t j) { return i * (2 * n - i + 1) / 2 + (j - i); };
        for (ptrdiff_t i = 0; i < n; i++) {
          s.scale[i] = s.second[packed_at(i, i)];
          s.counts[i] = lost(s.scale[i]) && product(i, i) != 0;
        }
        for (ptrdiff_t i = 0, k = 0; i < n; i++)
          for (ptrdiff_t j = i; j < n; j++, k++) {
            const bool again = s.counts[i] || s.counts[j];
            const double sum = again ? product(i, j) : s.second[k];
            result[k] = std::isfinite(sum) ? sum : NAN;
          }
      });
  if (status != HB_OK) return status;
  for (ptrdiff_t i = 0, k = 0; i < n; i++)
    for (ptrdiff_t j = i; j < n; j++, k++) out[i * n + j] = out[j * n + i] = std::isfinite(sums[k]) ? sums[k] : NAN;
  return HB_OK;
}

// Tile values: n scores (whole numbers, exact in float64), then n L1 sums.
template <class T>
int brsgd(const T *const *rows, ptrdiff_t n, ptrdiff_t d, int64_t *scores, double *l1, int threads) {
  Memory both(2 * n * sizeof(double));
  if (!both.start) return HB_NO_MEMORY;
  double *sums = static_cast<double *>(both.start);
  const int status = over_tiles(
      d, 2 * n, threads, sums, [&](Arena &arena) { return take_scratch<T>(arena, n, n, false); },
      [&](ptrdiff_t begin, ptrdiff_t end, double *result, const Scratch<T> &s) {
        memset(s.lanes, 0, n * LANES<T> * sizeof(double));
        memset(s.counts, 0, n * LANES<T> * sizeof(*s.counts));
        ptrdiff_t padded = 0;
        over_blocks<T, BLOCK>(rows, n, begin, end, s, [&](ptrdiff_t c, ptrdiff_t width, ptrdiff_t padding) {
          T *middle = s.middle + (c - begin);
          blocks<T>()->median(s.block, n, 0, width - padding, middle, s.work);
          memcpy(s.point, middle, (width - padding) * sizeof(T));
          memset(s.point + width - padding, 0, padding * sizeof(T));
          blocks<T>()->brsgd(s.block, n, width, s.point, s.lanes, s.counts);
          padded += padding;
        });
        blocks<T>()->reduce(s.lanes, n, result + n);
        for (ptrdiff_t i = 0; i < n; i++) {
          double sum = result[n + i], score = static_cast<double>(-padded);  // a padded column gives every row 1
          for (ptrdiff_t k = 0; k < LANES<T>; k++) score += static_cast<double>(s.counts[i * LANES<T> + k]);
          if (!std::isfinite(sum))
            sum = or_infinite(exact<T>(begin, end, [&](ptrdiff_t c) {
              return std::fabs(static_cast<double>(rows[i][c]) - static_cast<double>(s.middle[c - begin]));
            }));
          result[i] = score;
          result[n + i] = sum;
        }
      });
  if (status != HB_OK) return status;
  for (ptrdiff_t i = 0; i < n; i++) {
    scores[i] = static_cast<int64_t>(sums[i]);
    l1[i] = sums[n + i];
  }
  return HB_OK;
}

}  // namespace hb
