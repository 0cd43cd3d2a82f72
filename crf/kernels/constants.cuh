// What the kernels of the dense CRF and those that launch them must agree on: plain C++, included by kernels, crf/csrc
// and runtime/cpp, and read by Python as `atrous._native.KERNEL_CONSTANTS`.
#pragma once

#include <cstdint>

#include "native/kernels/grid.cuh"

namespace atrous {

/// Splat entries that one group of threads sums up. A multiple of 4.
constexpr int kSlice = 32;

/// Pixels of the tiles that turn planes into rows and back, and the rows of threads that work on one.
constexpr int kPlaneTile = 32;
constexpr int kPlaneRows = 8;

constexpr int kScanItems = 8;
constexpr int kScanTile = kThreads * kScanItems;
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kSortRounds = 16;
constexpr int kSortTile = kThreads * kSortRounds;

/// Vertices of a simplex of the lattices of positions, and of positions and colours.
constexpr int kGaussianCorners = 3;
constexpr int kBilateralCorners = 6;

/// 64-bit words of a `Term` in mean_field.cuh.
constexpr int kTermWords = 6;

/// Why a frame failed.
enum Failure : uint32_t {
    kKeyRange = 1,        ///< a lattice coordinate does not fit its key, or is not finite
    kTableFull = 2,       ///< more vertices than there is room for
    kNotFinite = 4,       ///< a probability is NaN or infinite
    kNotProbability = 8,  ///< a probability lies outside [0, 1]
};

/// One a workspace. A kernel that finds a failure of an earlier one does nothing, so that none works on garbage.
struct Status {
    uint32_t failures;   ///< Failure bits
    uint32_t first_bad;  ///< smallest index of a probability that is not finite
};

/// What a frame leaves behind: a `Status`, and where the kernels find how many vertices each lattice has.
struct FieldReport {
    uint32_t failures, first_bad, gaussian_vertices, bilateral_vertices;
};

}  // namespace atrous
