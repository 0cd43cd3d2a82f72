// Resizing of 8-bit pictures with antialiasing, bit for bit as Pillow's BILINEAR does it, which is what Python uses.
#pragma once

#include <cstdint>
#include <vector>

#include "manifest.hpp"

namespace atrous::core {

/// [height, width, 3] with `row_bytes` between rows → `out`, [to.height, to.width, 3] packed.
void stretch(const std::uint8_t* pixels, const Size& from, std::int64_t row_bytes, const Size& to, int threads,
             std::vector<std::uint8_t>& out);

}  // namespace atrous::core
