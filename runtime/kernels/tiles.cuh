// Logits of tiles → logits of the whole image, as `blend_tiles` in runtime/csrc/tiling.cpp blends them.
#pragma once

#include "common.cuh"

namespace atrous {

/// blended += tile · min(row's weight, column's weight). `tile` [planes, height, width]; `blended` is the cell of a
/// larger map on which the tile's first one lies, `plane` and `row` cells from one to the next.
template <typename T>
__device__ void blend_tile(const T* tile, int planes, int height, int width, const float* row_weights,
                           const float* column_weights, int plane, int row, float* blended) {
    for (int job = global_thread(); job < planes * height * width; job += all_threads()) {
        const int x = job % width;
        const int y = job / width % height;
        const size_t begin = static_cast<size_t>(job / width / height) * plane;
        float* cell = blended + begin + static_cast<size_t>(y) * row + x;
        *cell += to_float(tile[job]) * fminf(row_weights[y], column_weights[x]);
    }
}

#define ATROUS_BLEND_KERNEL(suffix, T)                                                                          \
    extern "C" __global__ void frame_blend_tile_##suffix(const T* tile, int planes, int height, int width,      \
                                                         const float* row_weights, const float* column_weights, \
                                                         int plane, int row, float* blended) {                  \
        blend_tile(tile, planes, height, width, row_weights, column_weights, plane, row, blended);              \
    }

ATROUS_BLEND_KERNEL(f32, float)
ATROUS_BLEND_KERNEL(f16, __half)

/// blended [planes, plane] /= sums [plane].
extern "C" __global__ void frame_average_tiles(const float* sums, int planes, int plane, float* blended) {
    for (int job = global_thread(); job < planes * plane; job += all_threads()) blended[job] /= sums[job % plane];
}

}  // namespace atrous
