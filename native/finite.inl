// Compiled once per instruction set by finite.cpp.

#include "native/lanes.inl"

static bool all_finite(const float* values, std::int64_t count) {
    // Times zero, finite numbers vanish and the others become NaN, which sticks.
    Float8 sums{};
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) sums += load<Float8>(values + i) * 0.0f;
    float sum = sum_of_lanes(sums)[0];
    for (; i < count; ++i) sum += values[i] * 0.0f;
    return sum == 0.0f;
}
