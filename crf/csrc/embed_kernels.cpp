#include "embed_kernels.hpp"

#include <cmath>

#include "native/isa.hpp"

namespace atrous {
namespace {
#define ATROUS_KERNELS "crf/csrc/embed_kernels.inl"
#include "native/for_each_isa.inc"
}  // namespace

const EmbedKernels& embed_kernels() {
    return select_by_isa(baseline::kEmbedKernels, avx2::kEmbedKernels, avx512::kEmbedKernels);
}

}  // namespace atrous
