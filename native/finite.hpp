#pragma once

#include <cstdint>

namespace atrous {

/// True when none of `count` floats is NaN or infinite.
bool all_finite(const float* values, std::int64_t count);

}  // namespace atrous
