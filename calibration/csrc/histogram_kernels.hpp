// The two loops over values that a histogram needs.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace atrous {

/// What is exact about the values seen; `elements` and `zeros` are of those that were counted. Comparisons and sums of
/// integers only, so any order gives the same.
struct Extremes {
    float min = std::numeric_limits<float>::infinity();
    float max = -std::numeric_limits<float>::infinity();
    std::int64_t elements = 0;
    std::int64_t zeros = 0;
    bool finite = true;

    float max_abs() const { return min > max ? 0.0f : std::fabs(max > -min ? max : min); }
};

/// Bins of a histogram, and those behind them.
constexpr std::int32_t kHistogramBins = 4096, kSpareBins = 8;

struct HistogramKernels {
    /// `min`, `max` and `finite` of values[0 … count); the first two mean nothing when a value is not finite.
    Extremes (*scan)(const float* values, std::int64_t count);
    /// Counts the values of every `every`-th group of eight. Those that are not 0 go to bin ⌊|v| · scale⌋, which the
    /// caller knows to exist, in one table or the other: with one, equal neighbours would wait for each other. Zeros,
    /// of which a ReLU leaves many, go to the spare bins behind the others, a lane each, for the same reason.
    void (*tally)(const float* values, std::int64_t count, std::int64_t every, float scale, std::uint32_t* even,
                  std::uint32_t* odd);
};

const HistogramKernels& histogram_kernels();

}  // namespace atrous
