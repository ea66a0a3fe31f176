// Statistics over columns: one tile at a time, float32 lanes first, float64 where float32 lost the value.
#pragma once
#include <cmath>

#include "drive.h"

namespace hb {

// One thread's scratch for statistics of a tile.
template <class T> struct Scratch {
  double *lanes;       // LANES per statistic
  const T **block;     // n pointers to the block's start
  T *padded;           // n x BLOCK: the last block beside zeros, or the centred rows
  T *centred;          // n x BLOCK
  T *middle;           // TILE: medians
  T *point;            // BLOCK
  int64_t *scores;     // n
  double *scale;       // n
  Work<T> work;
};
template <class T> Scratch<T> take_scratch(Arena &arena, ptrdiff_t n, ptrdiff_t statistics, bool centred) {
  Scratch<T> s;
  s.lanes = arena.take<double>(statistics * LANES<T>);
  s.block = arena.take<const T *>(n);
  s.padded = arena.take<T>(n * BLOCK);
  s.centred = centred ? arena.take<T>(n * BLOCK) : nullptr;
  s.middle = arena.take<T>(TILE);
  s.point = arena.take<T>(BLOCK);
  s.scores = arena.take<int64_t>(n);
  s.scale = arena.take<double>(n);
  s.work = take_work<T>(arena, n);
  return s;
}

// body(column, width) for each block of a tile, s.block pointing at it.  The last block is copied beside zeros up to a
// multiple of the lanes: zeros add nothing to any of the sums.
template <class T, class Body>
void over_blocks(const T *const *rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, const Scratch<T> &s, Body body) {
  for (ptrdiff_t c = begin; c < end; c += BLOCK) {
    const ptrdiff_t width = std::min(BLOCK, end - c), full = (width + LANES<T> - 1) / LANES<T> * LANES<T>;
    for (ptrdiff_t i = 0; i < n; i++) {
      s.block[i] = rows[i] + c;
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
  return or_infinite(exact<T>(begin, end, [&](ptrdiff_t c) {
    const double difference = static_cast<double>(a[c]) - static_cast<double>(b[c]);
    return difference * difference;
  }));
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
        over_blocks(rows, n, begin, end, s, [&](ptrdiff_t, ptrdiff_t width, ptrdiff_t) {
          blocks<T>()->squared(s.block, n, width, s.lanes);
        });
        for (ptrdiff_t i = 0, k = 0; i < n; i++)
          for (ptrdiff_t j = i + 1; j < n; j++, k++)
            result[k] = settle(horizontal<T>(s.lanes + k * LANES<T>), rows[i], rows[j], begin, end);
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
        over_blocks(rows, n, begin, end, s, [&](ptrdiff_t c, ptrdiff_t width, ptrdiff_t padding) {
          memcpy(s.point, point + c, (width - padding) * sizeof(T));
          memset(s.point + width - padding, 0, padding * sizeof(T));
          blocks<T>()->to_point(s.block, n, width, s.point, s.lanes);
        });
        for (ptrdiff_t i = 0; i < n; i++)
          result[i] = settle(horizontal<T>(s.lanes + i * LANES<T>), rows[i], point, begin, end);
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
        over_blocks(rows, n, begin, end, s, [&](ptrdiff_t c, ptrdiff_t width, ptrdiff_t padding) {
          T *middle = s.middle + (c - begin);
          blocks<T>()->median(s.block, n, 0, width - padding, middle, s.work);
          memcpy(s.point, middle, (width - padding) * sizeof(T));
          memset(s.point + width - padding, 0, padding * sizeof(T));
          blocks<T>()->centre(s.block, n, width, s.point, s.centred);
          for (ptrdiff_t i = 0; i < n; i++) s.block[i] = s.centred + i * BLOCK;
          blocks<T>()->products(s.block, n, width, s.lanes);
        });
        auto product = [&](ptrdiff_t i, ptrdiff_t j) {
          return exact<T>(begin, end, [&](ptrdiff_t c) {
            const double m = s.middle[c - begin];
            return (static_cast<double>(rows[i][c]) - m) * (static_cast<double>(rows[j][c]) - m);
          });
        };
        // A row whose own sum float32 lost is multiplied again with every other; an exactly central row is 0 anyway.
        auto packed_at = [&](ptrdiff_t i, ptrdiff_t j) { return i * (2 * n - i + 1) / 2 + (j - i); };
        for (ptrdiff_t i = 0; i < n; i++) {
          s.scale[i] = horizontal<T>(s.lanes + packed_at(i, i) * LANES<T>);
          s.scores[i] = lost(s.scale[i]) && product(i, i) != 0;
        }
        for (ptrdiff_t i = 0, k = 0; i < n; i++)
          for (ptrdiff_t j = i; j < n; j++, k++) {
            const bool again = s.scores[i] || s.scores[j];
            const double sum = again ? product(i, j) : horizontal<T>(s.lanes + k * LANES<T>);
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
        memset(s.scores, 0, n * sizeof(int64_t));
        over_blocks(rows, n, begin, end, s, [&](ptrdiff_t c, ptrdiff_t width, ptrdiff_t padding) {
          T *middle = s.middle + (c - begin);
          blocks<T>()->median(s.block, n, 0, width - padding, middle, s.work);
          memcpy(s.point, middle, (width - padding) * sizeof(T));
          memset(s.point + width - padding, 0, padding * sizeof(T));
          blocks<T>()->brsgd(s.block, n, width, s.point, s.lanes, s.scores);
          for (ptrdiff_t i = 0; i < n; i++) s.scores[i] -= padding; // a padded column gives every row 1
        });
        for (ptrdiff_t i = 0; i < n; i++) {
          double sum = horizontal<T>(s.lanes + i * LANES<T>);
          if (!std::isfinite(sum))
            sum = or_infinite(exact<T>(begin, end, [&](ptrdiff_t c) {
              return std::fabs(static_cast<double>(rows[i][c]) - static_cast<double>(s.middle[c - begin]));
            }));
          result[i] = static_cast<double>(s.scores[i]);
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

template <class T> int nonfinite(const T *const *rows, ptrdiff_t n, ptrdiff_t d, int64_t *out, int threads) {
  Memory counts(n * sizeof(double));
  if (!counts.start) return HB_NO_MEMORY;
  double *sums = static_cast<double *>(counts.start);
  const int status = over_tiles(
      d, n, threads, sums, [](Arena &) { return 0; },
      [&](ptrdiff_t begin, ptrdiff_t end, double *result, int) {
        for (ptrdiff_t i = 0; i < n; i++) result[i] = static_cast<double>(blocks<T>()->nonfinite(rows[i], begin, end));
      });
  if (status == HB_OK)
    for (ptrdiff_t i = 0; i < n; i++) out[i] = static_cast<int64_t>(sums[i]);
  return status;
}

}  // namespace hb
