#include "filter_kernels.hpp"

#include <algorithm>

#include "native/isa.hpp"

namespace atrous {
namespace {
#define ATROUS_KERNELS "crf/csrc/filter_kernels.inl"
#include "native/for_each_isa.inc"
}  // namespace

const FilterKernels& filter_kernels() {
    return select_by_isa(baseline::kFilterKernels, avx2::kFilterKernels, avx512::kFilterKernels);
}

}  // namespace atrous
