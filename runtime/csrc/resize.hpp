// Resizing of images with antialiasing: of bytes bit for bit as Pillow 13's BILINEAR does it, of wider samples alike.
#pragma once

#include <cstdint>

#include "geometry.hpp"
#include "pixels.hpp"

namespace atrous {

/// [from.height, from.width, channels] with `row_bytes` between rows → `out`, [to.height, to.width, channels] packed.
void resize_pixels(const void* pixels, const PixelFormat& format, const Size& from, std::int64_t row_bytes,
                   const Size& to, int threads, void* out);

}  // namespace atrous
