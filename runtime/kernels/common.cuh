// What the kernels around the network share: runs of pixels along a row, loaded and stored as whole words.
//
// Plain CUDA C++17: raw pointers and sizes, no library but cuda_fp16.h. To be compiled with -fmad=false: products and
// sums round one by one, as in the CPU's twins in runtime/csrc, whose bits these kernels give.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "constants.cuh"
#include "native/kernels/threads.cuh"

namespace atrous {

__device__ inline int runs_of(int length) {
    return (length + kRun - 1) / kRun;
}

/// Pixels that a run beginning at `begin` has before `end`, 0 to kRun.
__device__ inline int run_length(int begin, int end) {
    const int rest = end - begin;
    return rest < 0 ? 0 : rest < kRun ? rest : kRun;
}

template <typename Word>
__device__ bool is_aligned(const void* address) {
    return reinterpret_cast<uintptr_t>(address) % sizeof(Word) == 0;
}

/// Four bytes that may lie anywhere, as one word where they can be.
union Bytes {
    uint32_t packed;
    uint8_t each[4];
};

/// `count` packed pixels of three bytes, to the pixels of a run from `begin` on; the others are 0.
__device__ inline void load_pixels(const uint8_t* from, int begin, int count, uint8_t (&to)[3 * kRun]) {
    if (count == kRun && is_aligned<uint32_t>(from)) {
#pragma unroll
        for (int word = 0; word < 3; ++word) {
            Bytes bytes;
            bytes.packed = reinterpret_cast<const uint32_t*>(from)[word];
#pragma unroll
            for (int i = 0; i < 4; ++i) to[4 * word + i] = bytes.each[i];
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 3 * kRun; ++i) {
        const int at = i - 3 * begin;
        to[i] = at >= 0 && at < 3 * count ? from[at] : 0;
    }
}

__device__ inline void store_pixels(const uint8_t (&from)[3 * kRun], int count, uint8_t* to) {
    if (count == kRun && is_aligned<uint32_t>(to)) {
#pragma unroll
        for (int word = 0; word < 3; ++word) {
            Bytes bytes;
#pragma unroll
            for (int i = 0; i < 4; ++i) bytes.each[i] = from[4 * word + i];
            reinterpret_cast<uint32_t*>(to)[word] = bytes.packed;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 3 * kRun; ++i) {
        if (i < 3 * count) to[i] = from[i];
    }
}

__device__ inline void store_run(const uint8_t (&from)[kRun], int count, uint8_t* to) {
    if (count == kRun && is_aligned<uint32_t>(to)) {
        Bytes bytes;
#pragma unroll
        for (int i = 0; i < kRun; ++i) bytes.each[i] = from[i];
        *reinterpret_cast<uint32_t*>(to) = bytes.packed;
        return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
        if (i < count) to[i] = from[i];
    }
}

__device__ inline void store_run(const uint16_t (&from)[kRun], int count, uint16_t* to) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
        if (i < count) to[i] = from[i];
    }
}

__device__ inline void store_run(const float (&from)[kRun], int count, float* to) {
    if (count == kRun && is_aligned<float4>(to)) {
        *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
        if (i < count) to[i] = from[i];
    }
}

/// Four halves as one word.
union Halves {
    uint2 packed;
    unsigned short each[kRun];
};

__device__ inline void store_run(const float (&from)[kRun], int count, __half* to) {
    Halves halves;
#pragma unroll
    for (int i = 0; i < kRun; ++i) halves.each[i] = __half_as_ushort(__float2half_rn(from[i]));
    if (count == kRun && is_aligned<uint2>(to)) {
        *reinterpret_cast<uint2*>(to) = halves.packed;
        return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
        if (i < count) to[i] = __ushort_as_half(halves.each[i]);
    }
}

template <typename T>
__device__ T from_float(float value);

template <>
__device__ inline float from_float<float>(float value) {
    return value;
}

template <>
__device__ inline __half from_float<__half>(float value) {
    return __float2half_rn(value);
}

__device__ inline float to_float(float value) {
    return value;
}

__device__ inline float to_float(__half value) {
    return __half2float(value);
}

}  // namespace atrous
