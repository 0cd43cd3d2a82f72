// Pixels in, pixels out: normalisation of images for the network, colours of bands, and the overlay of labels.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "geometry.hpp"
#include "pixels.hpp"

namespace atrous {

/// How pixels become network input: (sample − mean) / std. In units of the samples: of bytes, 0…255.
struct PixelScaling {
    std::vector<float> mean, std;  ///< by output channel
    bool swap_rgb = false;         ///< output channels are B, G, R of an image in R, G, B
    std::vector<float> pad_value;  ///< by channel of the image
    Sample sample = Sample::uint8;

    PixelFormat format() const { return {static_cast<int>(mean.size()), sample}; }
    /// Where an output channel lies in a pixel.
    int source(int channel) const { return swap_rgb ? 2 - channel : channel; }
    /// What an output channel holds beyond the image.
    float padding(int channel) const { return (pad_value[source(channel)] - mean[channel]) / std[channel]; }
};

/// How bands become colours of 0…255: (sample − low) · factor, rounded to nearest, halves up.
struct BandColors {
    PixelFormat format;
    std::array<int, 3> band;  ///< of R, G and B; −1 for 0 everywhere
    std::array<float, 3> low, factor;
};

/// out [3, out_size] = the scaled image, which fills the window, and padding around it. `row_bytes` is the distance
/// between image rows. For bands, [bands, out_size].
void normalize_image(const void* pixels, const Window& window, std::int64_t row_bytes, const PixelScaling& scaling,
                     const Size& out_size, int threads, float* out);

/// rgb [size, 3] of the bands [size, bands], `row_bytes` from one row to the next.
void color_bands(const void* pixels, const Size& size, std::int64_t row_bytes, const BandColors& colors, int threads,
                 std::uint8_t* rgb);

/// What is drawn over an image: labels [pixels], in bytes or 16 bits, in the colours of the palette [colors, 3].
template <typename Label>
struct Drawing {
    const Label* labels;
    const std::uint8_t* palette;
    int colors;
    float alpha;
};

/// out = image + alpha · (palette[label] − image), rounded to nearest. Arrays [pixels, 3].
template <typename Label>
void overlay(const std::uint8_t* rgb, const Drawing<Label>& drawing, std::int64_t pixels, int threads,
             std::uint8_t* out);

}  // namespace atrous
