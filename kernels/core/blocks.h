// What one instruction set offers to the drivers: single-threaded kernels over a range of columns.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace hb {

struct Plan;

constexpr ptrdiff_t TILE = 4096;  // columns whose statistics are summed up before the tree over tiles (rows.TILE)
// Columns after which float32 lanes are added to float64 ones; both divide TILE.
constexpr ptrdiff_t BLOCK = 256;  // 45 rows of a block fit level-1 cache
constexpr ptrdiff_t PAIRS = 1024; // pairs of rows: adding n^2 sums up more often would take as long as the sums

template <class T> struct Tail {  // room for the last, partial vector of every row
  T *values;                      // n x 64 bytes
  const T **rows;                 // n
};
template <class T> struct Work {  // per thread, allocated before the loop over columns
  Tail<T> tail;
  void *sorted;                   // vectors of columns in order, 64 bytes for each of n rows: 4 where a network sorts, else 1, rounded up twice to 8 rows
  const Plan *all, *upper, *lower; // how to merge runs of all rows, of the first (n + 1) / 2 rows and of the others
};

constexpr int MIXED = 4;    // rows in a group whose subsets are summed up; see mixing.inc
constexpr int MIX_SIDE = 2; // vectors of columns that share each look-up of a subset

// Single-threaded kernels on columns [begin, end) of n rows.  `lanes` are running float64 sums, LANES<T> per statistic:
// value number c of a block always goes to lane c % LANES<T>, whatever the width of the machine's vectors.
template <class T> constexpr int LANES = 64 / sizeof(T);

template <class T> struct Key { typedef int32_t type; };
template <> struct Key<double> { typedef int64_t type; };

template <class T> struct Blocks {
  typedef const T *const *Rows;
  ptrdiff_t run; // straight-line networks sort up to so many rows
#define HB_BLOCK(RESULT, NAME, ...) RESULT (*NAME)(__VA_ARGS__);
#include "blocks.inc"
#undef HB_BLOCK
};

struct Level {
  const char *name;
  const Blocks<float> *f32;
  const Blocks<double> *f64;
};

} // namespace hb
