#include "image.hpp"

#include <algorithm>
#include <vector>

#include "native/parallel.hpp"

namespace atrous {

void normalize_image(const std::uint8_t* rgb, const Window& window, std::int64_t row_bytes, const PixelScaling& scaling,
                     const Size& out_size, int threads, float* out) {
    float table[3][256];  // every value that a channel can take
    float padding[3];
    for (int c = 0; c < 3; ++c) {
        for (int v = 0; v < 256; ++v) table[c][v] = (static_cast<float>(v) - scaling.mean[c]) / scaling.std[c];
        padding[c] = scaling.padding(c);
    }
    const std::int64_t plane = out_size.area();
    parallel_ranges(out_size.height, 16, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t y = begin; y < end; ++y) {
            const std::int64_t row = y - window.top;
            const bool is_covered = row >= 0 && row < window.size.height;
            for (int c = 0; c < 3; ++c) {
                float* target = out + c * plane + y * out_size.width;
                float* const end = target + out_size.width;
                if (is_covered) {
                    const std::uint8_t* source = rgb + row * row_bytes + (scaling.swap_rgb ? 2 - c : c);
                    std::fill(target, target + window.left, padding[c]);
                    target += window.left;
                    for (int x = 0; x < window.size.width; ++x) *target++ = table[c][source[3 * x]];
                }
                std::fill(target, end, padding[c]);
            }
        }
    });
}

void overlay(const std::uint8_t* rgb, const std::uint8_t* labels, const std::uint8_t* palette, std::int64_t pixels,
             float alpha, int threads, std::uint8_t* out) {
    float from_image[256];
    float from_palette[256 * 3];  // with the half that rounds to nearest
    for (int v = 0; v < 256; ++v) from_image[v] = (1.0f - alpha) * static_cast<float>(v);
    for (int i = 0; i < 256 * 3; ++i) from_palette[i] = alpha * static_cast<float>(palette[i]) + 0.5f;
    parallel_ranges(pixels, 16384, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t p = begin; p < end; ++p) {
            const float* colour = from_palette + 3 * labels[p];
            for (int c = 0; c < 3; ++c) {
                out[3 * p + c] = static_cast<std::uint8_t>(from_image[rgb[3 * p + c]] + colour[c]);
            }
        }
    });
}

}  // namespace atrous
