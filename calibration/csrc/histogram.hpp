// Histograms of magnitudes whose range need not be known in advance.
#pragma once

#include <cstdint>

#include "histogram_kernels.hpp"

namespace atrous {

/// Counts of |x| in bins whose width is the smallest power of two that covers the maximum.
///
/// The width depends only on the maximum, and widening merges neighbouring bins exactly: ⌊⌊x/w⌋/2⌋ = ⌊x/2w⌋. So the
/// result depends on the set of values, not on their order or their division among threads.
template <typename Count>
struct Bins {
    /// At least half of the bins are used, unless all magnitudes are below kBins · 2^kMinExponent.
    static constexpr int kBins = kHistogramBins;
    static constexpr int kLogBins = 12;
    /// Below the range of activations, and high enough that its inverse is a float.
    static constexpr int kMinExponent = -100;

    Count counts[kBins + kSpareBins] = {};  // the spare bins stay 0: see HistogramKernels::tally
    int exponent = kMinExponent;            // bin i holds i · 2^exponent ≤ |x| < (i + 1) · 2^exponent
    Extremes extremes;

    /// Widens the bins to cover magnitudes up to the finite `max_abs`.
    void widen_for(float max_abs);
    void widen_to(int wanted);

    template <typename Other>
    void merge(const Bins<Other>& other);
};

/// Histogram with 64-bit counts, which no calibration overflows. Not thread-safe.
class Histogram {
  public:
    /// Adds all values, on up to `threads` threads; returns false and adds none if one is not finite.
    bool add(const float* values, std::int64_t count, int threads);
    void merge(const Histogram& other);

    const Bins<std::int64_t>& bins() const { return bins_; }

  private:
    Bins<std::int64_t> bins_;
};

}  // namespace atrous
