// What one instruction set offers for rows of 16 bits, bfloat16 or float16; halves.cpp is compiled once for each.
#pragma once
#include "blocks.h"

namespace hb {

struct Halves {
  // The median of columns [begin, end), as float32; false where there is no network of n rows. brain: rows are bfloat16.
  bool (*median)(const uint16_t *const *rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, bool brain, float *out,
                 Tail<uint16_t> tail);
};

} // namespace hb
