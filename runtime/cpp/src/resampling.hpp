// Pillow's bilinear filter for 8-bit channels along one axis, to the last bit, for the CPU and the GPU.
#pragma once

#include <cstdint>
#include <vector>

#include "manifest.hpp"

namespace atrous::core {

/// Weights are fixed-point with so many bits after the point: Pillow's choice, so that 8-bit sums fit 32 bits.
constexpr int kFractionBits = 22;

/// Output i is the sum over t < taps of weights[i, t] · 2⁻²² · input[first[i] + t]; all of them lie inside.
struct Resampling {
    std::vector<std::int32_t> first;    ///< [outputs]
    std::vector<std::int32_t> weights;  ///< [outputs, taps]
    int taps;

    Resampling(int in, int out);
};

/// Both passes round to 8 bits, so their order shows: Pillow 13 goes down first where that takes away more.
bool goes_down_first(const Size& from, const Size& to);

}  // namespace atrous::core
