// Compiled once per instruction set by histogram_kernels.cpp.

#include "native/lanes.inl"

static Extremes scan(const float* values, std::int64_t count) {
    constexpr std::int32_t kMagnitude = 0x7fffffff, kInfinity = 0x7f800000;
    const Extremes nothing;
    Float8 low = splat8(nothing.min), high = splat8(nothing.max);
    Int8 broken{};
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const Float8 value = load<Float8>(values + i);
        const Int8 magnitude = float_as_bits(value) & kMagnitude;
        low = value < low ? value : low;
        high = value > high ? value : high;
        broken |= magnitude >= kInfinity;
    }
    Extremes seen;
    for (int lane = 0; lane < 8; ++lane) {
        seen.min = low[lane] < seen.min ? low[lane] : seen.min;
        seen.max = high[lane] > seen.max ? high[lane] : seen.max;
        seen.finite = seen.finite && broken[lane] == 0;
    }
    for (; i < count; ++i) {
        const float value = values[i];
        seen.min = value < seen.min ? value : seen.min;
        seen.max = value > seen.max ? value : seen.max;
        seen.finite = seen.finite && value - value == 0.0f;
    }
    return seen;
}

static void tally(const float* values, std::int64_t count, std::int64_t every, float scale, std::uint32_t* even,
                  std::uint32_t* odd) {
    constexpr Int8 kSpare = {0, 1, 2, 3, 4, 5, 6, 7};
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8 * every) {
        const Int8 magnitude = float_as_bits(load<Float8>(values + i)) & 0x7fffffff;
        const Int8 bins = __builtin_convertvector(bits_as_float(magnitude) * scale, Int8);
        const Int8 places = magnitude == 0 ? kSpare + kHistogramBins : bins;
        for (int lane = 0; lane < 8; lane += 2) {
            ++even[places[lane]];
            ++odd[places[lane + 1]];
        }
    }
    for (; i < count; ++i) {
        const float magnitude = __builtin_fabsf(values[i]);
        ++even[magnitude == 0.0f ? kHistogramBins : static_cast<std::int32_t>(magnitude * scale)];
    }
}

static constexpr HistogramKernels kHistogramKernels{scan, tally};
