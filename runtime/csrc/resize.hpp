// Resizing of 8-bit images with antialiasing, bit for bit as Pillow 13's BILINEAR does it.
#pragma once

#include <cstdint>

#include "geometry.hpp"

namespace atrous {

/// [from.height, from.width, 3] with `row_bytes` between rows → `out`, [to.height, to.width, 3] packed.
void resize_pixels(const std::uint8_t* pixels, const Size& from, std::int64_t row_bytes, const Size& to, int threads,
                   std::uint8_t* out);

}  // namespace atrous
