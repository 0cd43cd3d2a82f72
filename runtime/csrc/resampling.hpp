// Pillow's bilinear filter for 8-bit channels, to the last bit: weights and passes, for CPUs and GPUs.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/kernels/constants.cuh"

namespace atrous {

/// Output i is the sum over t < taps of weights[i, t] · 2⁻²² · input[first[i] + t]; all of them lie inside.
struct Resampling {
    std::vector<std::int32_t> first;    ///< [outputs]
    std::vector<std::int32_t> weights;  ///< [outputs, taps]
    int taps;

    Resampling(int in, int out);
};

/// One axis of an image.
struct ResizePass {
    bool is_down;       ///< along columns: other rows; else along rows
    int height, width;  ///< of the result
    Resampling resampling;
};

/// The one or two passes that resize an image, in their order. Both round to 8 bits, so the order shows: as Pillow 13,
/// down first where that takes away more.
std::vector<ResizePass> plan_resize(int from_height, int from_width, int to_height, int to_width);

}  // namespace atrous
