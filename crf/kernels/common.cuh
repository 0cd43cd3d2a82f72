// What all kernels of the dense CRF share: the frame's status, rows of channels, hash-table constants.
//
// Plain CUDA C++17: raw pointers and sizes, no library. To be compiled with -fmad=false: which simplex a pixel lies in
// is decided by the last bit, and the CPU core rounds every product and sum.
#pragma once

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

/// Less than this is what rounding leaves where barycentric weights are 0.
constexpr float kLeastMass = 1e-30f;

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

// Rows are loaded and stored `width` channels at a time: 16 bytes, or 4 for the single channel of a norm. Rows of
// uint16_t hold fractions as multiples of 1/65535, and arithmetic takes the multiples as they are.

/// What stands for 1 in a row.
template <typename T>
constexpr float kOne = 1.0f;
template <>
constexpr float kOne<uint16_t> = 65535.0f;

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

/// A float of 2²³ or more has no bits below 1: adding it rounds to the nearest whole number, ties to even, and leaves
/// that in the low bits. Cheaper than a conversion, of which a GPU does a quarter as many at a time.
constexpr float kWholeNumbers = 8388608.0f;

/// Eight fractions, two a word.
template <int width>
__device__ void load_row(const uint16_t* from, float (&to)[width]) {
    static_assert(width == 8, "16 bytes");
    const uint4 packed = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
    const uint32_t exponent = __float_as_uint(kWholeNumbers);
    for (int i = 0; i < 4; ++i) {
        to[2 * i] = __uint_as_float(exponent | (words[i] & 0xffffu)) - kWholeNumbers;
        to[2 * i + 1] = __uint_as_float(exponent | words[i] >> 16) - kWholeNumbers;
    }
}

template <int width>
__device__ void store_row(const float (&from)[width], uint16_t* to) {
    static_assert(width == 8, "16 bytes");
    uint32_t words[4];
    for (int i = 0; i < 4; ++i) {
        uint32_t bits[2];
        for (int half = 0; half < 2; ++half) {
            // Weighted means of fractions are fractions but for rounding.
            const float fraction = fminf(fmaxf(from[2 * i + half], 0.0f), kOne<uint16_t>);
            bits[half] = __float_as_uint(fraction + kWholeNumbers);
        }
        words[i] = (bits[0] & 0xffffu) | bits[1] << 16;
    }
    *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
}

}  // namespace atrous
