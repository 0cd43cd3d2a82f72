#include "image.hpp"

#include <algorithm>
#include <vector>

#include "crf/csrc/parallel.hpp"

namespace atrous {

void normalize_image(const std::uint8_t* rgb, int height, int width, std::int64_t row_bytes,
                     const NormalizeOptions& options, int threads, float* out) {
    float table[3][256];  // every value that a channel can take
    float padding[3];
    for (int c = 0; c < 3; ++c) {
        for (int v = 0; v < 256; ++v) table[c][v] = (static_cast<float>(v) - options.mean[c]) / options.std[c];
        padding[c] = (options.pad_value[options.swap_rgb ? 2 - c : c] - options.mean[c]) / options.std[c];
    }
    const std::int64_t plane = std::int64_t{options.out_height} * options.out_width;
    parallel_ranges(options.out_height, 16, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t y = begin; y < end; ++y) {
            const int covered = y < height ? width : 0;
            for (int c = 0; c < 3; ++c) {
                const std::uint8_t* source = rgb + y * row_bytes + (options.swap_rgb ? 2 - c : c);
                float* target = out + c * plane + y * options.out_width;
                for (int x = 0; x < covered; ++x) target[x] = table[c][source[3 * x]];
                std::fill(target + covered, target + options.out_width, padding[c]);
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
