#include "finite.hpp"

#include <algorithm>

#include "isa.hpp"

namespace atrous {
namespace {
#define ATROUS_KERNELS "native/finite.inl"
#include "for_each_isa.inc"
}  // namespace

bool all_finite(const float* values, std::int64_t count) {
    return select_by_isa(baseline::all_finite, avx2::all_finite, avx512::all_finite)(values, count);
}

}  // namespace atrous
