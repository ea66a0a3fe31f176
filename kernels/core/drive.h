// What the drivers share: memory, chunks of columns for threads, and the fixed binary tree over tiles.
#pragma once
#include <omp.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>

#include "blocks.h"
#include "kernels.h"
#include "plan.h"

namespace hb {

const Level &level();  // the instruction set in use
template <class T> const Blocks<T> *blocks();

// Zeroed memory on a cache line; null when there is none.
class Memory {
 public:
  explicit Memory(size_t bytes) {
    if (posix_memalign(&start, 64, std::max<size_t>(bytes, 64)) != 0) start = nullptr;
    if (start) memset(start, 0, bytes);
  }
  ~Memory() { free(start); }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  void *start = nullptr;
};

// Cuts one allocation into parts, each on a cache line.  Dry runs (base null) measure.
class Arena {
 public:
  explicit Arena(void *base) : base(static_cast<char *>(base)) {}
  template <class X> X *take(size_t count) {
    char *at = base + used;
    used += (count * sizeof(X) + 63) / 64 * 64;
    return base ? reinterpret_cast<X *>(at) : nullptr;
  }
  size_t used = 0;

 private:
  char *base;
};

template <class T> Work<T> take_work(Arena &arena, ptrdiff_t n) {
  Work<T> work;
  work.tail.values = arena.take<T>(n * LANES<T>);
  work.tail.rows = arena.take<const T *>(n);
  work.sorted = arena.take<T>(std::max((groups(n) + 1) * GROUP, n <= blocks<T>()->run ? 4 * n : 0) * LANES<T>);
  Plan *plans = arena.take<Plan>(3);
  const Plan **places[] = {&work.all, &work.upper, &work.lower};
  const ptrdiff_t sizes[] = {n, (n + 1) / 2, n / 2};
  for (int i = 0; i < 3; i++) {
    Step *steps = arena.take<Step>(plan_size(sizes[i], blocks<T>()->run));
    *places[i] = plans + i;
    if (plans) plans[i] = make_plan(sizes[i], blocks<T>()->run, steps);
  }
  return work;
}

// The rows of a weighted sum whose weights are not 0: whatever the others hold (NaN, Inf) is never read.
template <class T> struct Summands {
  Summands(const T *const *rows, ptrdiff_t n, const double *weights) : memory(n * (sizeof(T *) + sizeof(double)) + 64) {
    if (!memory.start) return;
    Arena arena(memory.start);
    weight = arena.take<double>(n);
    row = reinterpret_cast<const T **>(weight + n);
    for (ptrdiff_t i = 0; i < n; i++)
      if (weights[i] != 0) {
        row[active] = rows[i];
        weight[active++] = weights[i];
      }
  }
  void add(ptrdiff_t begin, ptrdiff_t end, T *out, Work<T> work) const {
    if (active == 1 && weight[0] == 1)
      blocks<T>()->copy(row[0], begin, end, out);
    else
      blocks<T>()->weighted_sum(row, active, weight, begin, end, out, work);
  }
  Memory memory;
  double *weight = nullptr;
  const T **row = nullptr;
  ptrdiff_t active = 0;
};

inline int team(int threads, ptrdiff_t chunks) {
  return static_cast<int>(std::max<ptrdiff_t>(1, std::min<ptrdiff_t>(threads, chunks)));
}

// body(begin, end, work) over all columns, in chunks that threads take as they come free: when another process holds
// a core, equal static shares would wait for it.  Values are per column, so the cut cannot be seen in the result.
template <class T, class Body> int over_columns(ptrdiff_t n, ptrdiff_t d, int threads, Body body) {
  constexpr ptrdiff_t CHUNK = 8 * TILE;
  const ptrdiff_t chunks = (d + CHUNK - 1) / CHUNK;
  threads = team(threads, chunks);
  Arena measure(nullptr);
  take_work<T>(measure, n);
  Memory memory(measure.used * threads);
  if (!memory.start) return HB_NO_MEMORY;
  auto work = [&](int thread) {
    Arena arena(static_cast<char *>(memory.start) + measure.used * thread);
    return take_work<T>(arena, n);
  };
  if (threads == 1) { // no parallel region: also safe in a child after fork
    if (d > 0) body(ptrdiff_t(0), d, work(0));
    return HB_OK;
  }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (ptrdiff_t k = 0; k < chunks; k++) body(k * CHUNK, std::min(d, (k + 1) * CHUNK), work(omp_get_thread_num()));
  return HB_OK;
}

// Adds up vectors of m values that arrive one by one, in the shape of a binary tree: node [s, s + 2^k) is the sum of
// its two halves, wherever the sequence ends (a missing right half is skipped).  Like a binary counter, it keeps one
// finished node per level.
class Tree {
 public:
  Tree(double *nodes, ptrdiff_t m) : nodes(nodes), m(m) {}
  double *slot() { return nodes + depth * m; }  // where the next vector is to be written
  void push() {                                 // it has been written
    count++;
    depth++;
    for (ptrdiff_t c = count; c % 2 == 0; c /= 2) fold();
  }
  void total(double *out) {
    while (depth > 1) fold();
    memcpy(out, nodes, m * sizeof(double));
  }
  static ptrdiff_t levels(ptrdiff_t leaves) {
    ptrdiff_t levels = 2;
    while ((ptrdiff_t(1) << (levels - 2)) < leaves) levels++;
    return levels;
  }

 private:
  void fold() {
    depth--;
    double *left = nodes + (depth - 1) * m, *right = nodes + depth * m;
    for (ptrdiff_t i = 0; i < m; i++) left[i] += right[i];
  }
  double *nodes;
  ptrdiff_t m, depth = 0, count = 0;
};

// Sums tile(begin, end, m values, scratch) over all tiles.  Chunks are nodes of the tree, so neither their size nor
// the thread that computes them changes a bit.  take(arena) lays out one thread's scratch.
template <class Take, class Body>
int over_tiles(ptrdiff_t d, ptrdiff_t m, int threads, double *out, Take take, Body tile) {
  const ptrdiff_t tiles = (d + TILE - 1) / TILE;
  if (tiles == 0) {
    memset(out, 0, m * sizeof(double));
    return HB_OK;
  }
  threads = team(threads, tiles);
  ptrdiff_t chunk = 1;  // tiles; about eight chunks per thread, so that the nodes' memory does not grow with d
  while (chunk < tiles && (threads == 1 || chunk * 8 * threads < tiles)) chunk *= 2;
  const ptrdiff_t chunks = (tiles + chunk - 1) / chunk;
  threads = team(threads, chunks);
  Arena measure(nullptr);
  measure.take<double>(Tree::levels(chunk) * m);
  take(measure);
  Memory memory(measure.used * threads), nodes(chunks * m * sizeof(double)),
      top(Tree::levels(chunks) * m * sizeof(double));
  if (!memory.start || !nodes.start || !top.start) return HB_NO_MEMORY;
  auto run = [&](ptrdiff_t k, int thread) {
    Arena arena(static_cast<char *>(memory.start) + measure.used * thread);
    Tree tree(arena.take<double>(Tree::levels(chunk) * m), m);
    auto scratch = take(arena);
    for (ptrdiff_t t = k * chunk; t < std::min(tiles, (k + 1) * chunk); t++) {
      tile(t * TILE, std::min(d, (t + 1) * TILE), tree.slot(), scratch);
      tree.push();
    }
    tree.total(static_cast<double *>(nodes.start) + k * m);
  };
  if (threads == 1) {
    for (ptrdiff_t k = 0; k < chunks; k++) run(k, 0);
  } else {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (ptrdiff_t k = 0; k < chunks; k++) run(k, omp_get_thread_num());
  }
  Tree tree(static_cast<double *>(top.start), m);
  for (ptrdiff_t k = 0; k < chunks; k++) {
    memcpy(tree.slot(), static_cast<double *>(nodes.start) + k * m, m * sizeof(double));
    tree.push();
  }
  tree.total(out);
  return HB_OK;
}

// The lanes of one statistic as one number: halves added to halves, always in this shape.
template <class T> double horizontal(const double *lanes) {
  double sum[LANES<T>];
  memcpy(sum, lanes, sizeof sum);
  for (ptrdiff_t half = LANES<T> / 2; half > 0; half /= 2)
    for (ptrdiff_t i = 0; i < half; i++) sum[i] += sum[i + half];
  return sum[0];
}

}  // namespace hb
