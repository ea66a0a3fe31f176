// Sorting more rows than there are straight-line networks: runs that networks sort, merged in groups of 8 rows.
//
// Groups are the elements of one Batcher network.  A comparator of two sorted groups leaves the 8 lowest values in one
// and the 8 highest in the other, both in order; a network that sorts numbers sorts such groups.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace hb {

constexpr ptrdiff_t GROUP = 8;
struct Step { int32_t a, b; };
struct Plan { const Step *steps; ptrdiff_t count; }; // group a before group b

static inline ptrdiff_t groups(ptrdiff_t n) { return (n + GROUP - 1) / GROUP; }

// Batcher's odd-even merge sort of n elements, depth first, as calls of add(a, b); runs of `sorted` elements, a power of
// two, are in order already.
template <class Add> static void batcher_merge(ptrdiff_t n, ptrdiff_t low, ptrdiff_t high, ptrdiff_t step, const Add &add) {
  if (low + step >= n) return;
  if (2 * step >= high - low) {
    add(low, low + step);
    return;
  }
  batcher_merge(n, low, high, 2 * step, add);
  batcher_merge(n, low + step, high, 2 * step, add);
  for (ptrdiff_t i = low + step; i + step < high && i + step < n; i += 2 * step) add(i, i + step);
}
template <class Add>
static void batcher_sort(ptrdiff_t n, ptrdiff_t low, ptrdiff_t span, ptrdiff_t sorted, const Add &add) {
  if (span <= sorted || low >= n) return;
  batcher_sort(n, low, span / 2, sorted, add);
  batcher_sort(n, low + span / 2, span / 2, sorted, add);
  batcher_merge(n, low, low + span - 1, 1, add);
}
template <class Add> static void batcher(ptrdiff_t n, ptrdiff_t sorted, const Add &add) {
  ptrdiff_t span = 1;
  while (span < n) span *= 2;
  batcher_sort(n, 0, span, sorted, add);
}

static inline ptrdiff_t plan_size(ptrdiff_t n, ptrdiff_t run) {
  ptrdiff_t size = 0;
  batcher(groups(n), run / GROUP, [&](ptrdiff_t, ptrdiff_t) { size++; });
  return size;
}

// The steps that bring n rows in order, in runs of `run` rows; `steps` is room for plan_size(n, run).
static inline Plan make_plan(ptrdiff_t n, ptrdiff_t run, Step *steps) {
  ptrdiff_t size = 0;
  batcher(groups(n), run / GROUP, [&](ptrdiff_t a, ptrdiff_t b) { steps[size++] = Step{(int32_t)a, (int32_t)b}; });
  return Plan{steps, size};
}

} // namespace hb
