// The median of rows of 16 bits: twice as many columns in a vector as of float32, and half the bytes to read. Only its result
// is widened. Compiled once per instruction set, as isa.cpp.
#include "vec.h"

#include "net.h"

#include "halves.h"

namespace hb {
namespace HB_ISA {

// bfloat16 and float16 alike: sign, exponent, fraction from the top down, so one integer key orders either.
struct F16 {
  typedef uint16_t T;
  typedef int16_t K;
  typedef T V __attribute__((vector_size(HB_VB), may_alias));
  typedef K VK __attribute__((vector_size(HB_VB), may_alias));
  typedef T VU __attribute__((vector_size(HB_VB), aligned(2), may_alias));
  static constexpr int W = HB_VB / 2, BITS = 16;
  static constexpr K MAG = 0x7fff;
};

// Half H of a vector of keys as floats, exactly.
template <bool BRAIN, int H, int... I> HB_INLINE F32::V as_floats_(std::integer_sequence<int, I...>, F16::VK keys) {
  typedef uint16_t Part __attribute__((vector_size(HB_VB / 2)));
  typedef uint32_t Wide __attribute__((vector_size(HB_VB)));
  const F16::V bits = (F16::V)flip<F16>(keys);
  const Wide wide = __builtin_convertvector((Part)__builtin_shufflevector(bits, bits, (H * (F16::W / 2) + I)...), Wide);
  if constexpr (BRAIN) return (F32::V)(wide << 16);
  // Exponents grow by 112, and that of NaN and Inf, 31, becomes 255; a denormal number is its fraction times 2^-24.
  const Wide magnitude = wide & 0x7fff, shifted = magnitude << 13;
  const F32::VK endless = (F32::VK)magnitude >= 0x7c00, small = (F32::VK)magnitude < 0x400;
  const Wide normal = shifted + (112u << 23) + ((Wide)endless & (112u << 23));
  const F32::V tiny = __builtin_convertvector((F32::VK)magnitude, F32::V) * 0x1p-24f;
  const Wide value = ((Wide)small & (Wide)tiny) | (~(Wide)small & normal);
  return (F32::V)(value | (wide & 0x8000) << 16);
}
template <bool BRAIN, int H> HB_INLINE F32::V as_floats(F16::VK keys) {
  return as_floats_<BRAIN, H>(std::make_integer_sequence<int, F16::W / 2>(), keys);
}

template <bool BRAIN, bool TWO> HB_INLINE void write(const F16::VK *middle, float *to) {
  unroll<2>([&](auto h) HB_LAMBDA {
    constexpr int H = decltype(h)::value;
    const F32::V low = as_floats<BRAIN, H>(middle[0]);
    if constexpr (TWO)
      store<F32>(to + H * F32::W, finite_or_zero<F32>(midpoint<F32>(low, as_floats<BRAIN, H>(middle[1]))));
    else
      store<F32>(to + H * F32::W, finite_or_zero<F32>(low));
  });
}

template <int N> HB_INLINE void select(const uint16_t *const *rows, ptrdiff_t c, F16::VK *middle) {
  if constexpr (N == 1)
    middle[0] = load_key<F16>(rows[0] + c);
  else
    median_network<F16>(Index<N>(), rows, c, middle);
}

// The network runs on a few vectors of columns before any result is widened, so that its code is there once.
template <int N>
HB_HOT void median_n(const uint16_t *const *rows, ptrdiff_t begin, ptrdiff_t end, bool brain, float *out,
                     Tail<uint16_t> tail) {
  auto some = [&](const uint16_t *const *row, ptrdiff_t c, ptrdiff_t stop, float *to) HB_LAMBDA {
    for (; c < stop; c += F16::W, to += F16::W) {
      F16::VK middle[2];
      select<N>(row, c, middle);
      if (brain)
        write<true, N % 2 == 0>(middle, to);
      else
        write<false, N % 2 == 0>(middle, to);
    }
  };
  const ptrdiff_t rest = (end - begin) % F16::W;
  alignas(64) float last[F16::W];
  const uint16_t *const *row = rows;
  ptrdiff_t c = begin, stop = end - rest;
  float *to = out + begin;
  for (;;) { // the last, partial vector of every row goes through the same loop, beside zeros
    some(row, c, stop, to);
    if (to == last || rest == 0) break;
    for (ptrdiff_t i = 0; i < N; i++) {
      uint16_t *copy = tail.values + i * F16::W;
      memset(copy, 0, sizeof(F16::V));
      memcpy(copy, rows[i] + end - rest, rest * sizeof(uint16_t));
      tail.rows[i] = copy;
    }
    row = tail.rows, c = 0, stop = F16::W, to = last;
  }
  if (rest) memcpy(out + end - rest, last, rest * sizeof(float));
}

typedef void (*Median)(const uint16_t *const *, ptrdiff_t, ptrdiff_t, bool, float *, Tail<uint16_t>);
template <int... N> constexpr auto median_table(std::integer_sequence<int, N...>) {
  struct Table { Median of[sizeof...(N)]; };
  return Table{{median_n<N + 1>...}};
}
static Median median_for(ptrdiff_t n) {
  static constexpr auto table = median_table(std::make_integer_sequence<int, HB_MEDIANS>());
  if (n <= HB_MEDIANS) return table.of[n - 1];
#ifdef HB_LARGE
#define HB_CASE(N) if (n == N) return median_n<N>;
  HB_LARGE_MEDIANS(HB_CASE)
#undef HB_CASE
#endif
  return nullptr;
}
static bool median(const uint16_t *const *rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, bool brain, float *out,
                   Tail<uint16_t> tail) {
  const Median kernel = median_for(n);
  if (kernel && begin < end) kernel(rows, begin, end, brain, out, tail);
  return kernel != nullptr;
}

} // namespace HB_ISA

extern const Halves HB_NAME;
const Halves HB_NAME = {HB_ISA::median};
} // namespace hb
