// Pixels in, pixels out: normalisation of camera images for the network, and the overlay of labels.
#pragma once

#include <array>
#include <cstdint>

namespace atrous {

/// How an 8-bit image becomes network input. Units of 0…255.
struct NormalizeOptions {
    std::array<float, 3> mean, std;  ///< by output channel
    bool swap_rgb;                   ///< output channels are B, G, R
    std::array<float, 3> pad_value;  ///< R, G, B; normalised like a pixel
    int out_height, out_width;       ///< at least the image; the rest, right and below, is padding
};

/// out [3, out_height, out_width] = (image − mean) / std. `row_bytes` is the distance between image rows.
void normalize_image(const std::uint8_t* rgb, int height, int width, std::int64_t row_bytes,
                     const NormalizeOptions& options, int threads, float* out);

/// out = image + alpha · (palette[label] − image), rounded to nearest. Arrays [pixels, 3], [pixels], [256, 3].
void overlay(const std::uint8_t* rgb, const std::uint8_t* labels, const std::uint8_t* palette, std::int64_t pixels,
             float alpha, int threads, std::uint8_t* out);

}  // namespace atrous
