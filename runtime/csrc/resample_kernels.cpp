#include "resample_kernels.hpp"

#include "native/isa.hpp"

namespace atrous {
namespace {
#define ATROUS_KERNELS "runtime/csrc/resample_kernels.inl"
#include "native/for_each_isa.inc"
}  // namespace

const ResampleKernels& resample_kernels() {
    return select_by_isa(baseline::kResampleKernels, avx2::kResampleKernels, avx512::kResampleKernels);
}

}  // namespace atrous
