#include "histogram.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>

#include "native/parallel.hpp"

namespace atrous {
namespace {

/// Values per task: many more than bins, and few enough for 32-bit counts.
constexpr std::int64_t kGrain = std::int64_t{1} << 17;
/// Values per block, which is read twice: for its range, then for counting, from the first-level cache.
constexpr std::int64_t kBlock = 2048;
/// In arrays of more than kSampledFrom values, only every kSampledGroups-th group of eight is counted: enough for any
/// threshold, and counting takes three times as long as finding the range. Seven, because the length of rows is often a
/// multiple of eight groups.
constexpr std::int64_t kSampledFrom = std::int64_t{1} << 18, kSampledGroups = 7;
static_assert(kGrain % kBlock == 0, "the groups counted in a block must not depend on the tasks");

void merge_extremes(Extremes& into, const Extremes& from) {
    into.min = std::min(into.min, from.min);
    into.max = std::max(into.max, from.max);
    into.elements += from.elements;
    into.zeros += from.zeros;
    into.finite = into.finite && from.finite;
}

}  // namespace

template <typename Count>
void Bins<Count>::widen_for(float max_abs) {
    if (max_abs == 0.0f) return;
    int power;
    std::frexp(max_abs, &power);  // 2^(power − 1) <= max_abs < 2^power
    widen_to(power - kLogBins);
}

template <typename Count>
void Bins<Count>::widen_to(int wanted) {
    if (wanted <= exponent) return;
    const int shift = std::min(wanted - exponent, kLogBins);  // a larger shift also leaves everything in bin 0
    for (int bin = 1; bin < kBins; ++bin) {
        const Count count = counts[bin];
        counts[bin] = 0;
        counts[bin >> shift] += count;  // the target is at or below `bin`, so it has already been moved
    }
    exponent = wanted;
}

template <typename Count>
template <typename Other>
void Bins<Count>::merge(const Bins<Other>& other) {
    widen_to(other.exponent);
    const int shift = std::min(exponent - other.exponent, kLogBins);
    if (shift == 0) {  // the usual case, which vectorizes
        for (int bin = 0; bin < kBins; ++bin) counts[bin] += static_cast<Count>(other.counts[bin]);
    } else {
        for (int bin = 0; bin < kBins; ++bin) counts[bin >> shift] += static_cast<Count>(other.counts[bin]);
    }
    merge_extremes(extremes, other.extremes);
}

namespace {

/// Counts one task, up to the first block with a value that is not finite.
struct Part {
    Bins<std::uint32_t> even, odd;  // see HistogramKernels::tally; finally merged into `even`

    explicit Part(int exponent) { even.exponent = odd.exponent = exponent; }

    void add(const float* values, std::int64_t count, std::int64_t every) {
        const HistogramKernels& kernels = histogram_kernels();
        for (std::int64_t begin = 0; begin < count; begin += kBlock) {
            const std::int64_t length = std::min(kBlock, count - begin);
            const Extremes block = kernels.scan(values + begin, length);
            merge_extremes(even.extremes, block);
            if (!block.finite) break;
            even.widen_for(block.max_abs());
            odd.widen_for(block.max_abs());
            const float scale = std::ldexp(1.0f, -even.exponent);
            kernels.tally(values + begin, length, every, scale, even.counts, odd.counts);
        }
        sum_up();
    }

  private:
    /// Merges both tables, moves zeros to bin 0, and counts the values.
    void sum_up() {
        for (int spare = kHistogramBins; spare < kHistogramBins + kSpareBins; ++spare) {
            even.extremes.zeros += even.counts[spare] + odd.counts[spare];
        }
        even.counts[0] += static_cast<std::uint32_t>(even.extremes.zeros);
        for (int bin = 0; bin < kHistogramBins; ++bin) {
            even.counts[bin] += odd.counts[bin];
            even.extremes.elements += even.counts[bin];
        }
    }
};

}  // namespace

bool Histogram::add(const float* values, std::int64_t count, int threads) {
    const auto added = std::make_unique<Bins<std::int64_t>>();
    std::mutex mutex;
    const std::int64_t every = count > kSampledFrom ? kSampledGroups : 1;
    parallel_ranges(count, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
        Part part(bins_.exponent);
        part.add(values + begin, end - begin, every);
        const std::lock_guard<std::mutex> lock(mutex);
        added->merge(part.even);
    });
    if (added->extremes.finite) bins_.merge(*added);
    return added->extremes.finite;
}

void Histogram::merge(const Histogram& other) {
    bins_.merge(other.bins_);
}

}  // namespace atrous
