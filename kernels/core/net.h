// Comparator networks: which two rows to compare, in which order, and which results are used.
//
// Those that select the median are in generated/networks_32.h and networks_16.h, which tools/networks/header.py writes from
// networks.txt: the same comparators, ordered for 32 and for 16 registers. The macros below turn them into code.
//
// Those that sort are built at compile time, as Batcher's odd-even merge sort in depth-first (recursive) order: each half is finished before the next begins, so few
// values are live at once and they stay in registers (breadth-first order took twice as long for 64 rows).  For n that
// is no power of two the comparators that reach past n are dropped, as if +infinity stood there.  The network is then
// pruned backwards to the wanted ranks: a comparator whose larger result nobody reads becomes one minimum.
namespace hb {
namespace HB_ISA {

enum : uint8_t { KEEP_MIN = 1, KEEP_MAX = 2, LOAD_A = 4, LOAD_B = 8 };
struct Comparator { uint8_t a, b, what; };

struct Counter { // counts comparators
  int size = 0;
  constexpr void add(int, int) { size++; }
};
template <int CAPACITY> struct List { // records them
  int size = 0;
  Comparator at[CAPACITY > 0 ? CAPACITY : 1] = {};
  constexpr void add(int a, int b) { at[size++] = Comparator{(uint8_t)a, (uint8_t)b, 0}; }
};

// Merges the two sorted halves of [low, high] (both ends included) at the given step.
template <class Out> constexpr void merge(Out &out, int n, int low, int high, int step) {
  if (low + step >= n) return; // everything here is past the end
  if (2 * step >= high - low) {
    out.add(low, low + step);
    return;
  }
  merge(out, n, low, high, 2 * step);
  merge(out, n, low + step, high, 2 * step);
  for (int i = low + step; i + step < high && i + step < n; i += 2 * step) out.add(i, i + step);
}
template <class Out> constexpr void sort(Out &out, int n, int low, int span) {
  if (span < 2 || low >= n) return;
  sort(out, n, low, span / 2);
  sort(out, n, low + span / 2, span / 2);
  merge(out, n, low, low + span - 1, 1);
}
constexpr int power_of_two(int n) {
  int p = 1;
  while (p < n) p *= 2;
  return p;
}
template <int N> constexpr int comparators() {
  Counter c;
  sort(c, N, 0, power_of_two(N));
  return c.size;
}

// The network for N rows that leaves rank r in slot r for every r in [FIRST, LAST].
template <int N, int FIRST, int LAST> constexpr auto network() {
  constexpr int SIZE = comparators<N>();
  List<SIZE> all;
  sort(all, N, 0, power_of_two(N));
  bool wanted[N] = {}, loaded[N] = {};
  for (int i = FIRST; i <= LAST; i++) wanted[i] = true;
  for (int i = SIZE - 1; i >= 0; i--) { // backwards: a result is kept if something later reads it
    Comparator &c = all.at[i];
    c.what = (uint8_t)((wanted[c.a] ? KEEP_MIN : 0) | (wanted[c.b] ? KEEP_MAX : 0));
    if (c.what) wanted[c.a] = wanted[c.b] = true;
  }
  List<SIZE> kept;
  for (int i = 0; i < SIZE; i++) { // forwards: a row is loaded by the first comparator that reads it
    Comparator c = all.at[i];
    if (!c.what) continue;
    if (!loaded[c.a]) c.what |= LOAD_A;
    if (!loaded[c.b]) c.what |= LOAD_B;
    loaded[c.a] = loaded[c.b] = true;
    kept.at[kept.size++] = c;
  }
  return kept;
}

template <int N, int FIRST, int LAST> struct Network {
  static constexpr int ROWS = N;
  static constexpr auto value = network<N, FIRST, LAST>();
};

// Bytes to fetch ahead in each of n rows.  Hardware prefetchers follow about 16 streams per core, fewer than n.  12 KiB in
// all: enough to cover the memory's latency when rows are few, a part of level-1 cache when they are many.
constexpr ptrdiff_t ahead(ptrdiff_t n) {
  const ptrdiff_t lines = 12288 / 64 / n;
  return 64 * (lines < 2 ? 2 : lines > 64 ? 64 : lines);
}

// Keyed on the two slots, not on the network: networks of all sizes share these, which halves the compile time.
template <class F, int AHEAD, int A, int B, int WHAT>
HB_INLINE void compare(typename F::VK *v, const typename F::T *const *rows, ptrdiff_t column) {
  typedef typename F::VK VK;
  if constexpr (WHAT & LOAD_A) {
    const typename F::T *p = rows[A] + column;
    __builtin_prefetch((const char *)p + AHEAD);
    VK bits = (VK) * (const typename F::VU *)p;
    v[A] = bits ^ ((bits >> (F::BITS - 1)) & F::MAG);
  }
  if constexpr (WHAT & LOAD_B) {
    const typename F::T *p = rows[B] + column;
    __builtin_prefetch((const char *)p + AHEAD);
    VK bits = (VK) * (const typename F::VU *)p;
    v[B] = bits ^ ((bits >> (F::BITS - 1)) & F::MAG);
  }
  VK x = v[A], y = v[B];
  if constexpr (WHAT & KEEP_MIN) v[A] = x < y ? x : y;
  if constexpr (WHAT & KEEP_MAX) v[B] = x < y ? y : x;
}

template <class F, class Net, int AHEAD, int... I>
HB_INLINE void apply_(std::integer_sequence<int, I...>, typename F::VK *v, const typename F::T *const *rows,
                      ptrdiff_t column) {
  (compare<F, AHEAD, Net::value.at[I].a, Net::value.at[I].b, Net::value.at[I].what>(v, rows, column), ...);
}
template <class F, class Net>
HB_INLINE void apply(typename F::VK *v, const typename F::T *const *rows, ptrdiff_t column) {
  apply_<F, Net, ahead(Net::ROWS)>(std::make_integer_sequence<int, Net::value.size>(), v, rows, column);
}

// median_network<F>(Index<N>(), rows, column, to): the keys of the middle ranks of N rows, one or two of them. Each row is
// loaded right before the first comparator that reads it; v7 is what wire 7 holds.
template <class F, int N> HB_INLINE typename F::VK fetched(const typename F::T *p) {
  __builtin_prefetch((const char *)p + ahead(N));
  return load_key<F>(p);
}
#define HB_NETWORK(RULE, N)                                                                                   \
  template <class F>                                                                                          \
  HB_INLINE void RULE##_network(Index<N>, const typename F::T *const *rows, ptrdiff_t column, typename F::VK *to) { \
    typedef typename F::VK VK;                                                                                \
    constexpr int ROWS = N;
#define HB_ROW(A) VK v##A = fetched<F, ROWS>(rows[A] + column);
#define HB_MIN(A, B) v##A = v##A < v##B ? v##A : v##B;
#define HB_MAX(A, B) v##B = v##A < v##B ? v##B : v##A;
#define HB_BOTH(A, B)                  \
  {                                    \
    const VK x = v##A, y = v##B;       \
    v##A = x < y ? x : y;              \
    v##B = x < y ? y : x;              \
  }
#define HB_OUT(I, A) to[I] = v##A;
#define HB_END }
#if HB_VB == 64
#include "../generated/networks_32.h"
#else
#include "../generated/networks_16.h"
#endif

} // namespace HB_ISA
} // namespace hb
