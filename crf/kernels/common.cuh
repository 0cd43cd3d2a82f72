// What all kernels of the dense CRF share: the frame's status, rows of channels, hash-table constants.
//
// Plain CUDA C++17: raw pointers and sizes, no library but cuda_fp16.h. To be compiled with -fmad=false: which simplex
// a pixel lies in is decided by the last bit, and the CPU core rounds every product and sum.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace atrous {

constexpr int kThreads = 256;  ///< threads of every block whose size does not depend on the number of channels
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

/// Why a frame failed; mirrored in atrous/crf/cuda_field.py.
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

/// Contribution of one pixel to one vertex.
struct SplatEntry {
    int32_t pixel;  ///< its complement in the last entry of a vertex
    float weight;
};

/// Entries that one group of threads sums up. A multiple of 4.
constexpr int kSlice = 32;

/// A logit this low gives probability 0 and keeps padded channels out of every maximum and sum.
constexpr float kPaddingLogit = -1e30f;

__device__ inline bool failed(const Status* status) {
    return status->failures != 0;
}

__device__ inline int global_thread() {
    return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

__device__ inline int all_threads() {
    return static_cast<int>(gridDim.x * blockDim.x);
}

// Rows are loaded and stored `width` channels at a time: 16 bytes, or 4 for the single channel of a norm.

template <int width>
__device__ void load_row(const float* from, float (&to)[width]) {
    static_assert(width % 4 == 0 || width == 1, "whole vectors");
    if constexpr (width == 1) {
        to[0] = from[0];
    } else {
        for (int i = 0; i < width; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(from + i);
            to[i] = four.x;
            to[i + 1] = four.y;
            to[i + 2] = four.z;
            to[i + 3] = four.w;
        }
    }
}

template <int width>
__device__ void store_row(const float (&from)[width], float* to) {
    if constexpr (width == 1) {
        to[0] = from[0];
    } else {
        for (int i = 0; i < width; i += 4) {
            *reinterpret_cast<float4*>(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
        }
    }
}

/// Eight half-precision channels; arithmetic is always in single precision.
union HalfRow {
    uint4 packed;
    unsigned short bits[8];
};

template <int width>
__device__ void load_row(const __half* from, float (&to)[width]) {
    static_assert(width == 8, "16 bytes");
    HalfRow row;
    row.packed = *reinterpret_cast<const uint4*>(from);
    for (int i = 0; i < width; ++i) to[i] = __half2float(__ushort_as_half(row.bits[i]));
}

template <int width>
__device__ void store_row(const float (&from)[width], __half* to) {
    static_assert(width == 8, "16 bytes");
    HalfRow row;
    for (int i = 0; i < width; ++i) row.bits[i] = __half_as_ushort(__float2half_rn(from[i]));
    *reinterpret_cast<uint4*>(to) = row.packed;
}

}  // namespace atrous
