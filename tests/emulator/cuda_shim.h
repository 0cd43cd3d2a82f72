// Lets g++ compile CUDA kernels as they are, and runs them on one CPU thread.
//
// The threads of a block are fibers. A fiber takes threads that have not started and runs them one after the other;
// only when a thread waits at a barrier does another fiber go on. So a kernel without barriers is a plain loop. The
// order in which threads and blocks start can be reversed or shuffled: what depends on it is a race.
//
// Stricter than a GPU, on purpose: a barrier or a warp operation that some threads of the block or lanes of the warp
// miss is an error, and blocks that use warp operations must be whole warps. Blind to races on one memory word between
// two barriers that no order of whole stretches shows.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
// One block runs at a time, so its shared memory can be static.
#define __shared__ static

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::isfinite;

namespace emulator {

constexpr int kWarpSize = 32;

/// Leaves the kernel with an error that the launch reports.
[[noreturn]] void fail(const char* what);
void block_barrier();
/// Hands `mine` to the other lanes of the warp and returns those of all 32 lanes.
const std::uint64_t* exchange(unsigned mask, std::uint64_t mine);
int lane();

template <typename T>
std::uint64_t to_word(T value) {
    static_assert(sizeof(T) <= 8, "one word");
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof value);
    return word;
}

template <typename T>
T from_word(std::uint64_t word) {
    T value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}

/// The value of lane `source`, or of this lane where the source lies outside the warp.
template <typename T>
T shuffle(unsigned mask, T value, int source) {
    const std::uint64_t* words = exchange(mask, to_word(value));
    return source >= 0 && source < kWarpSize ? from_word<T>(words[source]) : value;
}

}  // namespace emulator

inline void __syncthreads() {
    emulator::block_barrier();
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulator::exchange(mask, 0);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int distance) {
    return emulator::shuffle(mask, value, emulator::lane() ^ distance);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
    return emulator::shuffle(mask, value, emulator::lane() - static_cast<int>(distance));
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
    const std::uint64_t* words = emulator::exchange(mask, emulator::to_word(value));
    unsigned peers = 0;
    for (int i = 0; i < emulator::kWarpSize; ++i) {
        if (words[i] == emulator::to_word(value)) peers |= 1u << i;
    }
    return peers;
}
inline float __int_as_float(int bits) {
    return emulator::from_word<float>(emulator::to_word(bits));
}
inline float __uint_as_float(unsigned bits) {
    return emulator::from_word<float>(emulator::to_word(bits));
}
inline unsigned __float_as_uint(float value) {
    return emulator::from_word<unsigned>(emulator::to_word(value));
}
inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}

// One CPU thread runs everything: plain operations are atomic. As in CUDA, the value before is returned.
template <typename T>
T atomicCAS(T* at, T expected, T desired) {
    const T old = *at;
    if (old == expected) *at = desired;
    return old;
}
inline unsigned long long atomicCAS(unsigned long long* at, std::uint64_t expected, std::uint64_t desired) {
    return atomicCAS<unsigned long long>(at, expected, desired);
}
template <typename T>
T atomicAdd(T* at, T value) {
    const T old = *at;
    *at = old + value;
    return old;
}
template <typename T>
T atomicMin(T* at, T value) {
    const T old = *at;
    if (value < old) *at = value;
    return old;
}
inline unsigned atomicOr(unsigned* at, unsigned bits) {
    const unsigned old = *at;
    *at = old | bits;
    return old;
}
