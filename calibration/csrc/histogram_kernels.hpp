// The vectorized loops of a histogram.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace atrous {

/// Exact statistics of all values; `elements` and `zeros` cover the counted ones. Only comparisons and integer sums, so
/// the result does not depend on the order.
struct Extremes {
    float min = std::numeric_limits<float>::infinity();
    float max = -std::numeric_limits<float>::infinity();
    std::int64_t elements = 0;
    std::int64_t zeros = 0;
    bool finite = true;

    float max_abs() const { return min > max ? 0.0f : std::fabs(max > -min ? max : min); }
};

/// Number of bins of a histogram, and of spare bins after them.
constexpr std::int32_t kHistogramBins = 4096, kSpareBins = 8;

struct HistogramKernels {
    /// `min`, `max` and `finite` of values[0 … count); `min` and `max` are undefined if a value is not finite.
    Extremes (*scan)(const float* values, std::int64_t count);
    /// Counts the values of every `every`-th group of eight. Non-zero values go to bin ⌊|v| · scale⌋, which must exist,
    /// alternating between two tables: in one table, equal neighbours would wait for each other's store. Zeros, which
    /// are frequent after a ReLU, go to one spare bin per lane, for the same reason.
    void (*tally)(const float* values, std::int64_t count, std::int64_t every, float scale, std::uint32_t* even,
                  std::uint32_t* odd);
};

const HistogramKernels& histogram_kernels();

}  // namespace atrous
