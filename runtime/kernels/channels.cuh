// One channel under a sigmoid as two classes. Twins: runtime/csrc/channels.cpp.
#pragma once

#include "common.cuh"

namespace atrous {

/// scores [images, 2, cells]: `background`, then the logits [images, cells].
template <typename T>
__device__ void add_background(const T* logits, int images, int cells, float background, float* scores) {
    for (int job = global_thread(); job < images * cells; job += all_threads()) {
        const size_t image = job / cells;
        float* cell = scores + 2 * image * cells + job % cells;
        cell[0] = background;
        cell[cells] = to_float(logits[job]);
    }
}

#define ATROUS_BACKGROUND_KERNEL(suffix, T)                                                                            \
    extern "C" __global__ void frame_add_background_##suffix(const T* logits, int images, int cells, float background, \
                                                             float* scores) {                                          \
        add_background(logits, images, cells, background, scores);                                                     \
    }

ATROUS_BACKGROUND_KERNEL(f32, float)
ATROUS_BACKGROUND_KERNEL(f16, __half)

/// labels [images, pixels] are 1 where the second of the probabilities [images, 2, pixels] is above the threshold.
extern "C" __global__ void frame_apply_threshold(const float* probabilities, int images, int pixels, float threshold,
                                                 uint8_t* labels) {
    for (int job = global_thread(); job < images * pixels; job += all_threads()) {
        const size_t image = job / pixels;
        labels[job] = probabilities[(2 * image + 1) * pixels + job % pixels] > threshold ? 1 : 0;
    }
}

}  // namespace atrous
