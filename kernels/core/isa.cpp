// Compiled once per instruction set and dtype: -DHB_ISA=avx2 -DHB_VB=32 -DHB_F=F32 -DHB_NAME=avx2_f32
// -DHB_NETWORKS=64, and the flags of that set.  The only symbol that leaves this file is the table at its end.
#include "vec.h"

#include "net.h"

#include "sort.inc"

#include "median.inc"

#include "trimmed.inc"

#include "phocas.inc"

#include "stream.inc"

#include "mixing.inc"

#include "pairs.inc"

#include "bits.inc"

namespace hb {
extern const Blocks<HB_ISA::HB_F::T> HB_NAME;
const Blocks<HB_ISA::HB_F::T> HB_NAME = {
    HB_NETWORKS,
#define HB_BLOCK(RESULT, NAME, ...) HB_ISA::NAME<HB_ISA::HB_F>,
#include "blocks.inc"
};
} // namespace hb
