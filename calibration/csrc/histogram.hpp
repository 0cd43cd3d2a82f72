// Histograms of magnitudes that need to know nothing about the values to come.
#pragma once

#include <cstdint>

#include "histogram_kernels.hpp"

namespace atrous {

/// Counts of |x| in bins of a power of two, as wide as the largest magnitude seen needs them and no wider.
///
/// The width follows from that magnitude alone, and widening adds neighbours together: ⌊⌊x/w⌋/2⌋ = ⌊x/2w⌋. So the
/// result is a function of the set of values, whatever their order and however they were divided among threads.
template <typename Count>
struct Bins {
    /// At least half of the bins are in use, unless all magnitudes are below kBins · 2^kMinExponent.
    static constexpr int kBins = kHistogramBins;
    static constexpr int kLogBins = 12;
    /// So low that activations never meet it, so high that its inverse is a float.
    static constexpr int kMinExponent = -100;

    Count counts[kBins + kSpareBins] = {};  // the spare ones hold nothing: see HistogramKernels::tally
    int exponent = kMinExponent;            // bin i holds i · 2^exponent ≤ |x| < (i + 1) · 2^exponent
    Extremes extremes;

    /// Makes room for magnitudes up to `max_abs`, which is finite.
    void widen_for(float max_abs);
    void widen_to(int wanted);

    template <typename Other>
    void merge(const Bins<Other>& other);
};

/// A histogram in 64 bits, which no calibration overflows. For one thread at a time.
class Histogram {
  public:
    /// Adds all values, on up to `threads` threads; false, with none added, when one is not finite.
    bool add(const float* values, std::int64_t count, int threads);
    void merge(const Histogram& other);

    const Bins<std::int64_t>& bins() const { return bins_; }

  private:
    Bins<std::int64_t> bins_;
};

}  // namespace atrous
