#include "histogram_kernels.hpp"

#include "native/isa.hpp"

namespace atrous {
namespace {
#define ATROUS_KERNELS "calibration/csrc/histogram_kernels.inl"
#include "native/for_each_isa.inc"
}  // namespace

const HistogramKernels& histogram_kernels() {
    return select_by_isa(baseline::kHistogramKernels, avx2::kHistogramKernels, avx512::kHistogramKernels);
}

}  // namespace atrous
