// Exclusive scan and stable radix sort. Both give the same bits whatever order blocks and threads run in.
#pragma once

#include "common.cuh"

namespace atrous {

constexpr int kWarps = kThreads / kWarp;
static_assert(kDigits == kThreads, "one thread a digit");

/// Sum of `value` over the threads of lower index; `total` becomes that of all. For blocks of kThreads.
__device__ inline uint32_t scan_block(uint32_t value, uint32_t* total) {
    __shared__ uint32_t warp_sums[kWarps];
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    uint32_t inclusive = value;
    for (int distance = 1; distance < kWarp; distance *= 2) {
        const uint32_t below = __shfl_up_sync(kAllLanes, inclusive, distance);
        if (lane >= distance) inclusive += below;
    }
    __syncthreads();  // the sums of the call before have been read
    if (lane == kWarp - 1) warp_sums[warp] = inclusive;
    __syncthreads();
    uint32_t before = 0;
    uint32_t sum = 0;
    for (int w = 0; w < kWarps; ++w) {
        if (w < warp) before += warp_sums[w];
        sum += warp_sums[w];
    }
    *total = sum;
    return before + inclusive - value;
}

/// Scans kScanItems consecutive values a thread, starting at `base`, in place. Returns the sum of the tile.
__device__ inline uint32_t scan_tile(uint32_t* values, int count, int base, uint32_t carry) {
    const int begin = base + static_cast<int>(threadIdx.x) * kScanItems;
    uint32_t item[kScanItems];
    uint32_t sum = 0;
    for (int i = 0; i < kScanItems; ++i) {
        item[i] = begin + i < count ? values[begin + i] : 0;
        sum += item[i];
    }
    uint32_t total = 0;
    uint32_t running = carry + scan_block(sum, &total);
    for (int i = 0; i < kScanItems; ++i) {
        if (begin + i < count) values[begin + i] = running;
        running += item[i];
    }
    return total;
}

/// First of three: scans each tile of kScanTile values by itself. One block a tile.
extern "C" __global__ void crf_scan_tiles(uint32_t* values, int count, uint32_t* tile_sums) {
    const uint32_t total = scan_tile(values, count, static_cast<int>(blockIdx.x) * kScanTile, 0);
    if (threadIdx.x == 0) tile_sums[blockIdx.x] = total;
}

/// Second: scans the sums of the tiles; `total` becomes the sum of all. One block.
extern "C" __global__ void crf_scan_sums(uint32_t* tile_sums, int count, uint32_t* total) {
    uint32_t carry = 0;
    for (int base = 0; base < count; base += kScanTile) carry += scan_tile(tile_sums, count, base, carry);
    if (threadIdx.x == 0) *total = carry;
}

/// Third: adds to each value the sum of the tiles before its own.
extern "C" __global__ void crf_scan_add(uint32_t* values, int count, const uint32_t* tile_sums) {
    for (int i = global_thread(); i < count; i += all_threads()) values[i] += tile_sums[i / kScanTile];
}

__device__ inline int digit_of(unsigned long long pair, int shift) {
    return static_cast<int>((pair >> shift) & (kDigits - 1));
}

/// How often each digit occurs in each tile of kSortTile pairs: counts[digit][tile]. One block a tile.
extern "C" __global__ void crf_sort_count(const unsigned long long* pairs, int count, int shift, uint32_t* counts) {
    __shared__ uint32_t histogram[kDigits];
    histogram[threadIdx.x] = 0;
    __syncthreads();
    const int base = static_cast<int>(blockIdx.x) * kSortTile;
    for (int round = 0; round < kSortRounds; ++round) {
        const int at = base + round * kThreads + static_cast<int>(threadIdx.x);
        if (at < count) atomicAdd(&histogram[digit_of(pairs[at], shift)], 1u);
    }
    __syncthreads();
    counts[threadIdx.x * gridDim.x + blockIdx.x] = histogram[threadIdx.x];
}

/// Moves each pair behind those with a lower digit and those before it with the same digit. `starts` is the scan of
/// the counts. One block a tile; each warp owns consecutive pairs of it, 32 a round.
extern "C" __global__ void crf_sort_scatter(const unsigned long long* from, int count, int shift,
                                            const uint32_t* starts, unsigned long long* to) {
    __shared__ uint32_t next[kWarps][kDigits];  // first counts, then where the warp's next pair of a digit goes
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int base = static_cast<int>(blockIdx.x) * kSortTile + warp * kWarp * kSortRounds + lane;
    for (int w = 0; w < kWarps; ++w) next[w][threadIdx.x] = 0;
    __syncthreads();
    for (int round = 0; round < kSortRounds; ++round) {
        const int at = base + round * kWarp;
        if (at < count) atomicAdd(&next[warp][digit_of(from[at], shift)], 1u);
    }
    __syncthreads();
    uint32_t running = starts[threadIdx.x * gridDim.x + blockIdx.x];
    for (int w = 0; w < kWarps; ++w) {
        const uint32_t mine = next[w][threadIdx.x];
        next[w][threadIdx.x] = running;
        running += mine;
    }
    __syncthreads();
    for (int round = 0; round < kSortRounds; ++round) {
        const int at = base + round * kWarp;
        const unsigned long long pair = at < count ? from[at] : 0;
        const int digit = at < count ? digit_of(pair, shift) : kDigits;  // one that no pair has
        const unsigned peers = __match_any_sync(kAllLanes, digit);
        const int rank = __popc(peers & ((1u << lane) - 1));
        if (at < count) to[next[warp][digit] + rank] = pair;
        __syncwarp();  // all lanes have read before one writes
        if (at < count && rank == 0) next[warp][digit] += __popc(peers);
        __syncwarp();
    }
}

}  // namespace atrous
