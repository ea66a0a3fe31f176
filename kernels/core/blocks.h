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

// Single-threaded kernels on columns [begin, end) of n rows.  `lanes` are running float64 sums, LANES<T> per statistic:
// value number c of a block always goes to lane c % LANES<T>, whatever the width of the machine's vectors.
template <class T> constexpr int LANES = 64 / sizeof(T);

template <class T> struct Key { typedef int32_t type; };
template <> struct Key<double> { typedef int64_t type; };

template <class T> struct Blocks {
  typedef const T *const *Rows;
  ptrdiff_t run; // straight-line networks sort up to so many rows
  void (*median)(Rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, T *out, Work<T>);
  void (*trimmed_mean)(Rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t f, T *out, Work<T>);
  void (*mean_around_median)(Rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t f, T *out, Work<T>);
  void (*sign_majority)(Rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, T *out, Work<T>);
  void (*weighted_sum)(Rows, ptrdiff_t n, const double *weights, ptrdiff_t begin, ptrdiff_t end, T *out, Work<T>);
  void (*copy)(const T *row, ptrdiff_t begin, ptrdiff_t end, T *out);
  ptrdiff_t (*nonfinite)(const T *row, ptrdiff_t begin, ptrdiff_t end);
  ptrdiff_t (*checksum)(const T *row, ptrdiff_t begin, ptrdiff_t end);  // sum of the 32-bit words modulo 2^32
  bool (*equal)(const T *a, const T *b, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t next); // bit for bit; fetches `next` on
  // The rest add one block to lanes.  Rows point at the block; width, at most PAIRS or BLOCK, is a multiple of LANES<T>.
  // `next` points at the block after this one, which they fetch on the way.
  void (*squared)(Rows, ptrdiff_t n, ptrdiff_t width, Rows next, double *lanes);            // pairs i < j, PAIRS columns
  void (*squared_wide)(const T *a, const T *b, ptrdiff_t begin, ptrdiff_t end, double *lanes); // in float64, any columns
  void (*products)(Rows, ptrdiff_t n, ptrdiff_t width, Rows next, const T *point, double *lanes); // pairs i <= j of rows
                                                                                            // less point, PAIRS columns
  void (*to_point)(Rows, ptrdiff_t n, ptrdiff_t width, const T *point, double *lanes);      // rows, BLOCK columns
  void (*brsgd)(Rows, ptrdiff_t n, ptrdiff_t width, const T *median, double *lanes, typename Key<T>::type *counts);
  void (*reduce)(const double *lanes, ptrdiff_t count, double *out); // each statistic's lanes to their sum
  // Signs as bits, bytes [begin, end); the same for either dtype.
  void (*bit_majority)(const uint8_t *const *rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, uint8_t *negative,
                       uint8_t *tied);
  ptrdiff_t (*bit_difference)(const uint8_t *row, const uint8_t *point, const uint8_t *mask, ptrdiff_t begin,
                              ptrdiff_t end);
};

struct Level {
  const char *name;
  const Blocks<float> *f32;
  const Blocks<double> *f64;
};

} // namespace hb
