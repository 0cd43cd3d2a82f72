// The two loops over values that a histogram needs.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace atrous {

/// What is exact about the values seen. Comparisons and sums of integers only, so any order gives the same.
struct Extremes {
    float min = std::numeric_limits<float>::infinity();
    float max = -std::numeric_limits<float>::infinity();
    std::int64_t elements = 0;
    std::int64_t zeros = 0;
    bool finite = true;

    float max_abs() const { return elements == 0 ? 0.0f : std::fabs(max > -min ? max : min); }
};

struct HistogramKernels {
    /// The extremes of values[0 … count); `min` and `max` mean nothing when they are not finite.
    Extremes (*scan)(const float* values, std::int64_t count);
    /// Counts every value in bin ⌊|v| · scale⌋, which the caller knows to exist, in one table or the other: with one,
    /// equal neighbours such as the zeros behind a ReLU would wait for each other.
    void (*tally)(const float* values, std::int64_t count, float scale, std::uint32_t* even, std::uint32_t* odd);
};

const HistogramKernels& histogram_kernels();

}  // namespace atrous
