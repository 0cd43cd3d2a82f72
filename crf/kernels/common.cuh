// What all kernels of the dense CRF share: rows of channels and what belongs to them.
//
// Plain CUDA C++17: raw pointers and sizes, no library. To be compiled with -fmad=false: which simplex a pixel lies in
// is decided by the last bit, and the CPU core rounds every product and sum.
#pragma once

#include <cstdint>

#include "constants.cuh"
#include "native/kernels/threads.cuh"

namespace atrous {

constexpr unsigned kAllLanes = 0xffffffffu;

/// Contribution of one pixel to one vertex.
struct SplatEntry {
    int32_t pixel;  ///< its complement in the last entry of a vertex
    float weight;
};

/// Less than this is what rounding leaves where barycentric weights are 0.
constexpr float kLeastMass = 1e-30f;

/// A logit this low gives probability 0 and keeps padded channels out of every maximum and sum.
constexpr float kPaddingLogit = -1e30f;

__device__ inline bool failed(const Status* status) {
    return status->failures != 0;
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

/// Two fractions, the first in the low half.
__device__ inline void unpack(uint32_t word, float (&to)[2]) {
    const uint32_t exponent = __float_as_uint(kWholeNumbers);
    to[0] = __uint_as_float(exponent | (word & 0xffffu)) - kWholeNumbers;
    to[1] = __uint_as_float(exponent | word >> 16) - kWholeNumbers;
}

__device__ inline uint32_t pack(const float (&from)[2]) {
    uint32_t bits[2];
    for (int i = 0; i < 2; ++i) {
        // Weighted means of fractions are fractions but for rounding.
        const float fraction = fminf(fmaxf(from[i], 0.0f), kOne<uint16_t>);
        bits[i] = __float_as_uint(fraction + kWholeNumbers);
    }
    return (bits[0] & 0xffffu) | bits[1] << 16;
}

/// Eight fractions.
struct alignas(16) Fractions {
    uint32_t words[4];
};

template <int width>
__device__ void load_row(const uint16_t* from, float (&to)[width]) {
    static_assert(width == 8, "16 bytes");
    const Fractions packed = *reinterpret_cast<const Fractions*>(from);
    for (int i = 0; i < 4; ++i) {
        float two[2];
        unpack(packed.words[i], two);
        to[2 * i] = two[0];
        to[2 * i + 1] = two[1];
    }
}

template <int width>
__device__ void store_row(const float (&from)[width], uint16_t* to) {
    static_assert(width == 8, "16 bytes");
    Fractions packed;
    for (int i = 0; i < 4; ++i) {
        const float two[2] = {from[2 * i], from[2 * i + 1]};
        packed.words[i] = pack(two);
    }
    *reinterpret_cast<Fractions*>(to) = packed;
}

}  // namespace atrous
