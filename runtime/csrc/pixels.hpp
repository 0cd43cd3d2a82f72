// Pixels in memory: how many samples of which type one has.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace atrous {

constexpr int kMaxBands = 32;

/// Type of a sample: the manifest's `input.bands.dtype`.
enum class Sample { uint8, uint16, float32 };

/// Throws std::invalid_argument for another name than those in the manifest's schema.
inline Sample parse_sample(const std::string& name) {
    if (name == "uint8") return Sample::uint8;
    if (name == "uint16") return Sample::uint16;
    if (name == "float32") return Sample::float32;
    throw std::invalid_argument("unknown type of samples: " + name);
}

inline const char* to_text(Sample sample) {
    return sample == Sample::uint8 ? "uint8" : sample == Sample::uint16 ? "uint16" : "float32";
}

/// RGB or BGR in bytes, or the bands of a network that takes others.
struct PixelFormat {
    int channels = 3;
    Sample sample = Sample::uint8;

    int sample_bytes() const { return sample == Sample::uint8 ? 1 : sample == Sample::uint16 ? 2 : 4; }
    int bytes() const { return channels * sample_bytes(); }
    friend bool operator==(const PixelFormat& a, const PixelFormat& b) {
        return a.channels == b.channels && a.sample == b.sample;
    }
    friend bool operator!=(const PixelFormat& a, const PixelFormat& b) { return !(a == b); }
};

/// Calls `body` with a null pointer to the type of the samples.
template <typename Body>
auto with_sample_type(Sample sample, const Body& body) {
    switch (sample) {
        case Sample::uint16:
            return body(static_cast<const std::uint16_t*>(nullptr));
        case Sample::float32:
            return body(static_cast<const float*>(nullptr));
        default:
            return body(static_cast<const std::uint8_t*>(nullptr));
    }
}

}  // namespace atrous
