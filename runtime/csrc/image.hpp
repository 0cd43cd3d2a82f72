// Pixels in, pixels out: normalisation of camera images for the network, and the overlay of labels.
#pragma once

#include <array>
#include <cstdint>

#include "geometry.hpp"

namespace atrous {

/// How 8-bit pixels become network input: (pixel − mean) / std. Units of 0…255.
struct PixelScaling {
    std::array<float, 3> mean, std;  ///< by output channel
    bool swap_rgb;                   ///< output channels are B, G, R
    std::array<float, 3> pad_value;  ///< R, G, B

    /// What an output channel holds beyond the image.
    float padding(int channel) const {
        return (pad_value[swap_rgb ? 2 - channel : channel] - mean[channel]) / std[channel];
    }
};

/// out [3, out_size] = the scaled image, which fills the window, and padding around it. `row_bytes` is the distance
/// between image rows.
void normalize_image(const std::uint8_t* rgb, const Window& window, std::int64_t row_bytes, const PixelScaling& scaling,
                     const Size& out_size, int threads, float* out);

/// out = image + alpha · (palette[label] − image), rounded to nearest. Arrays [pixels, 3], [pixels], [256, 3].
void overlay(const std::uint8_t* rgb, const std::uint8_t* labels, const std::uint8_t* palette, std::int64_t pixels,
             float alpha, int threads, std::uint8_t* out);

}  // namespace atrous
