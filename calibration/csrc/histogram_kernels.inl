// Compiled once per instruction set by histogram_kernels.cpp.

#include "crf/csrc/lanes.inl"

static Extremes scan(const float* values, std::int64_t count) {
    constexpr std::int32_t kMagnitude = 0x7fffffff, kInfinity = 0x7f800000;
    const Extremes nothing;
    Float8 low = splat8(nothing.min), high = splat8(nothing.max);
    Int8 zeros{}, broken{};
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const Float8 value = load<Float8>(values + i);
        const Int8 magnitude = float_as_bits(value) & kMagnitude;
        low = value < low ? value : low;
        high = value > high ? value : high;
        zeros -= magnitude == 0;  // a true comparison is -1
        broken |= magnitude >= kInfinity;
    }
    Extremes seen;
    seen.elements = count;
    for (int lane = 0; lane < 8; ++lane) {
        seen.min = low[lane] < seen.min ? low[lane] : seen.min;
        seen.max = high[lane] > seen.max ? high[lane] : seen.max;
        seen.zeros += zeros[lane];
        seen.finite = seen.finite && broken[lane] == 0;
    }
    for (; i < count; ++i) {
        const float value = values[i];
        seen.min = value < seen.min ? value : seen.min;
        seen.max = value > seen.max ? value : seen.max;
        seen.zeros += value == 0.0f;
        seen.finite = seen.finite && value - value == 0.0f;
    }
    return seen;
}

static void tally(const float* values, std::int64_t count, float scale, std::uint32_t* even, std::uint32_t* odd) {
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const Float8 scaled = load<Float8>(values + i) * scale;
        const Int8 bins = __builtin_convertvector(bits_as_float(float_as_bits(scaled) & 0x7fffffff), Int8);
        for (int lane = 0; lane < 8; lane += 2) {
            ++even[bins[lane]];
            ++odd[bins[lane + 1]];
        }
    }
    for (; i < count; ++i) ++even[static_cast<std::int32_t>(__builtin_fabsf(values[i]) * scale)];
}

static constexpr HistogramKernels kHistogramKernels{scan, tally};
