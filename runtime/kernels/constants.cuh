// What the kernels around the network and those that launch them must agree on: plain C++, included by kernels,
// runtime/csrc and runtime/cpp, and read by Python as `atrous._native.KERNEL_CONSTANTS`.
#pragma once

namespace atrous {

/// Neighbouring pixels of a row that one thread works on.
constexpr int kRun = 4;

/// Weights of a resize are fixed-point with so many bits after the point: Pillow's choice, so that 8-bit sums fit 32
/// bits.
constexpr int kWeightBits = 22;

}  // namespace atrous
