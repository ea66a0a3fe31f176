// Compiled once per instruction set and dtype: -DHB_ISA=avx2 -DHB_VB=32 -DHB_F=F32 -DHB_NAME=avx2_f32
// -DHB_NETWORKS=64, and the flags of that set.  The only symbol that leaves this file is the table at its end.
#include "vec.h"

#include "net.h"

#include "sort.inc"

#include "median.inc"

#include "trimmed.inc"

#include "stream.inc"

#include "pairs.inc"

#include "bits.inc"

namespace hb {
extern const Blocks<HB_ISA::HB_F::T> HB_NAME;
const Blocks<HB_ISA::HB_F::T> HB_NAME = {
    HB_NETWORKS,
    HB_ISA::median<HB_ISA::HB_F>,
    HB_ISA::trimmed_mean<HB_ISA::HB_F>,
    HB_ISA::mean_around_median<HB_ISA::HB_F>,
    HB_ISA::sign_majority<HB_ISA::HB_F>,
    HB_ISA::weighted_sum<HB_ISA::HB_F>,
    HB_ISA::copy<HB_ISA::HB_F>,
    HB_ISA::nonfinite_count<HB_ISA::HB_F>,
    HB_ISA::checksum<HB_ISA::HB_F>,
    HB_ISA::equal<HB_ISA::HB_F>,
    HB_ISA::squared<HB_ISA::HB_F>,
    HB_ISA::squared_wide<HB_ISA::HB_F>,
    HB_ISA::products<HB_ISA::HB_F>,
    HB_ISA::to_point<HB_ISA::HB_F>,
    HB_ISA::brsgd<HB_ISA::HB_F>,
    HB_ISA::reduce<HB_ISA::HB_F>,
    HB_ISA::bit_majority,
    HB_ISA::bit_difference,
};
} // namespace hb
