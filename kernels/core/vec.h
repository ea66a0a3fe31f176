// Vectors of HB_VB bytes for one instruction set, without intrinsics (GCC / Clang vector extensions).
//
// This file and every .inc beside it are compiled once per instruction set.  All of it lives in a namespace named
// after that set and is static: were two sets to share one inline function, the linker would keep one copy of it,
// perhaps the AVX-512 one, and a machine without AVX-512 would die on it.  For the same reason nothing here calls
// a std:: function.
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <utility> // std::index_sequence: a type only, it emits no code

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "blocks.h"
#include "plan.h" // only its types and constants are used here

#define HB_INLINE static inline __attribute__((always_inline))
#define HB_HOT static __attribute__((noinline))

namespace hb {
namespace HB_ISA {

// One family of types per row dtype.  T value, K integer key, V / VK vectors of them, W values per vector.
// D is a vector of doubles; HALF of them hold one V (two for float, one for double).
struct F32 {
  typedef float T;
  typedef int32_t K;
  typedef T V __attribute__((vector_size(HB_VB), may_alias));
  typedef K VK __attribute__((vector_size(HB_VB), may_alias));
  typedef T VU __attribute__((vector_size(HB_VB), aligned(4), may_alias));
  typedef double D __attribute__((vector_size(HB_VB), may_alias));
  typedef int64_t DK __attribute__((vector_size(HB_VB), may_alias));
  typedef T HU __attribute__((vector_size(HB_VB / 2), aligned(4), may_alias));
  static constexpr int W = HB_VB / 4, HALF = 2, BITS = 32, LANES = 16;
  static constexpr K MAG = 0x7fffffff, INF = 0x7f800000, ONE = 0x3f800000;
};

struct F64 {
  typedef double T;
  typedef int64_t K;
  typedef T V __attribute__((vector_size(HB_VB), may_alias));
  typedef K VK __attribute__((vector_size(HB_VB), may_alias));
  typedef T VU __attribute__((vector_size(HB_VB), aligned(8), may_alias));
  typedef double D __attribute__((vector_size(HB_VB), may_alias));
  typedef int64_t DK __attribute__((vector_size(HB_VB), may_alias));
  typedef VU HU;
  static constexpr int W = HB_VB / 8, HALF = 1, BITS = 64, LANES = 8;
  static constexpr K MAG = 0x7fffffffffffffffLL, INF = 0x7ff0000000000000LL, ONE = 0x3ff0000000000000LL;
};

template <class F> HB_INLINE typename F::V load(const typename F::T *p) { return *(const typename F::VU *)p; }
template <class F> HB_INLINE void store(typename F::T *p, typename F::V v) { *(typename F::VU *)p = v; }

// Half h of the W values at p, as doubles.  Conversions are the one place with intrinsics: GCC 12 splits that of 8 floats
// into halves of halves.
template <class F> HB_INLINE typename F::D widen(const typename F::T *p, int h) {
  typename F::HU part = *(const typename F::HU *)(p + h * (F::W / F::HALF));
#if HB_VB == 64 && defined(__AVX512F__)
  if constexpr (F::HALF == 2) return (typename F::D)_mm512_cvtps_pd((__m256)part);
#endif
  return __builtin_convertvector(part, typename F::D);
}
// Order-preserving integer: a < b as floats  <=>  flip(a) < flip(b) as integers; it is its own inverse.
// Total order -NaN < -Inf < ... < -0 < +0 < ... < +Inf < +NaN, so a NaN sorts to an end instead of spoiling the sort,
// and integer minima are as cheap as float ones or cheaper (and do not slow down on denormals).
template <class F> HB_INLINE typename F::VK flip(typename F::VK b) { return b ^ ((b >> (F::BITS - 1)) & F::MAG); }
template <class F> HB_INLINE typename F::VK load_key(const typename F::T *p) { return flip<F>((typename F::VK)load<F>(p)); }
template <class F> HB_INLINE typename F::V from_key(typename F::VK k) { return (typename F::V)flip<F>(k); }

// All ones where the value is NaN or Inf.
template <class F> HB_INLINE typename F::VK nonfinite(typename F::V v) { return (((typename F::VK)v) & F::INF) == F::INF; }
// Promise: no kernel writes a non-finite coordinate; it becomes 0.
template <class F> HB_INLINE typename F::V finite_or_zero(typename F::V v) {
  return (typename F::V)((typename F::VK)v & ~nonfinite<F>(v));
}
template <class F> HB_INLINE typename F::V magnitude(typename F::V v) { return (typename F::V)((typename F::VK)v & F::MAG); }

// (a + b) / 2 without overflow: the sum first (what NumPy computes), halves first only where the sum is infinite.
template <class F> HB_INLINE typename F::V midpoint(typename F::V a, typename F::V b) {
  typename F::V sum = a + b;
  typename F::VK over = ((typename F::VK)sum & F::MAG) == F::INF;
  return over ? a * (typename F::T)0.5 + b * (typename F::T)0.5 : sum * (typename F::T)0.5;
}

template <class VK> HB_INLINE bool any(VK mask) {
  int64_t words[sizeof(VK) / 8], all = 0;
  memcpy(words, &mask, sizeof mask);
  for (int64_t word : words) all |= word;
  return all != 0;
}

// body(0), body(1), ..., body(N - 1) as straight-line code: arrays indexed by the argument become registers.
template <int I> struct Index { static constexpr int value = I; };
template <class Body, int... I>
HB_INLINE void unroll_(std::integer_sequence<int, I...>, Body body) { (body(Index<I>()), ...); }
template <int N, class Body> HB_INLINE void unroll(Body body) { unroll_(std::make_integer_sequence<int, N>(), body); }
#define HB_LAMBDA __attribute__((always_inline))

// Half H of a vector of floats as doubles; of doubles, the vector itself.
template <class F, int H, int... I>
HB_INLINE typename F::D widen_half_(std::integer_sequence<int, I...>, typename F::V v) {
  typedef typename F::T Half __attribute__((vector_size(HB_VB / F::HALF), may_alias));
  const Half part = __builtin_shufflevector(v, v, (H * (F::W / F::HALF) + I)...);
#if HB_VB == 64 && defined(__AVX512F__)
  if constexpr (F::HALF == 2) return (typename F::D)_mm512_cvtps_pd((__m256)part);
#endif
  return __builtin_convertvector(part, typename F::D);
}
template <class F, int H> HB_INLINE typename F::D widen_half(typename F::V v) {
  if constexpr (F::HALF == 1)
    return (typename F::D)v;
  else
    return widen_half_<F, H>(std::make_integer_sequence<int, F::W / F::HALF>(), v);
}

// The doubles of both halves as one vector of floats, rounded to nearest; of doubles, the vector itself.
template <class F, int... I>
HB_INLINE typename F::V join_(std::integer_sequence<int, I...>, const typename F::D *half) {
  typedef typename F::T Half __attribute__((vector_size(HB_VB / F::HALF), may_alias));
#if HB_VB == 64 && defined(__AVX512F__)
  const Half low = (Half)_mm512_cvtpd_ps((__m512d)half[0]), high = (Half)_mm512_cvtpd_ps((__m512d)half[1]);
#else
  const Half low = __builtin_convertvector(half[0], Half), high = __builtin_convertvector(half[1], Half);
#endif
  return (typename F::V)__builtin_shufflevector(low, high, I...);
}
template <class F> HB_INLINE typename F::V join(const typename F::D *half) {
  if constexpr (F::HALF == 1)
    return (typename F::V)half[0];
  else
    return join_<F>(std::make_integer_sequence<int, F::W>(), half);
}

// a b + c, of floats rounded once: by the machine's fused multiply-add, and where it has none by the same in float64,
// which gives the same bits (at a tenth of the speed).  The product of two floats is exact there; the sum is rounded to odd
// (an even result gives way to its odd neighbour on the side of what was lost), and then rounding it to a float cannot see
// that it was rounded before (Boldo, Melquiond 2008).  Of doubles: product and sum are rounded each, everywhere.
template <class F> HB_INLINE typename F::V fused(typename F::V a, typename F::V b, typename F::V c) {
  if constexpr (F::HALF == 1) {
    return a * b + c;
  } else {
#if HB_VB == 64 && defined(__AVX512F__)
    return (typename F::V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif HB_VB == 32 && defined(__FMA__)
    return (typename F::V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif HB_VB == 16 && defined(__aarch64__)
    return (typename F::V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    typedef typename F::D D;
    typedef typename F::DK DK;
    D half[F::HALF];
    unroll<F::HALF>([&](auto h) HB_LAMBDA {
      constexpr int H = decltype(h)::value;
      const D product = widen_half<F, H>(a) * widen_half<F, H>(b), add = widen_half<F, H>(c);
      const D sum = product + add, part = sum - product, error = (product - (sum - part)) + (add - part);
      const DK inexact = (DK)(error < 0) | (DK)(error > 0), outwards = ~((DK)(error > 0) ^ (DK)(sum > 0));
      const DK even = ((DK)sum & 1) - 1;
      half[H] = (D)((DK)sum + (inexact & even & ((outwards & 2) - 1)));
    });
    return join<F>(half);
#endif
  }
}

// Run kernel(Index<P>, rows, column, out) on every P vectors of columns in [begin, end), then on single ones (P = 1).
// The last, partial vector is copied beside zeros first, so no kernel reads or writes past a row's end; it goes through
// the same loop (one copy of the kernel).
template <class F, int P, class Kernel>
HB_INLINE void columns(const typename F::T *const *rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end,
                       typename F::T *out, Tail<typename F::T> tail, Kernel kernel) {
  typedef typename F::T T;
  alignas(64) T last[F::W];
  T *to = out;
  ptrdiff_t c = begin, stop = begin + (end - begin) / F::W * F::W;
  const ptrdiff_t rest = end - stop;
  if constexpr (P > 1)
    for (; stop - c >= P * F::W; c += P * F::W) kernel(Index<P>(), rows, c, to + c);
  for (;;) {
    for (; c < stop; c += F::W) kernel(Index<1>(), rows, c, to + c);
    if (to == last) break;
    if (rest == 0) return;
    for (ptrdiff_t i = 0; i < n; i++) {
      T *copy = tail.values + i * F::W;
      memset(copy, 0, F::W * sizeof(T));
      memcpy(copy, rows[i] + c, rest * sizeof(T));
      tail.rows[i] = copy;
    }
    rows = (const T *const *)tail.rows, to = last, c = 0, stop = F::W;
  }
  memcpy(out + end - rest, last, rest * sizeof(T));
}

} // namespace HB_ISA
} // namespace hb
