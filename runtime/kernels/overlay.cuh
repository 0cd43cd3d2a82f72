// The picture with the classes' colours over it. Twin: `overlay` in runtime/csrc/image.cpp.
#pragma once

#include "common.cuh"

namespace atrous {

/// out = picture + alpha · (palette[label] − picture), rounded to nearest. Arrays [pixels, 3], [pixels], [256, 3].
extern "C" __global__ void frame_overlay(const uint8_t* pictures, const uint8_t* labels, const uint8_t* palette,
                                         float alpha, int pixels, uint8_t* out) {
    const int runs = runs_of(pixels);
    for (int job = global_thread(); job < runs; job += all_threads()) {
        const size_t begin = static_cast<size_t>(job) * kRun;
        const int count = run_length(job * kRun, pixels);
        uint8_t values[3 * kRun];
        load_pixels(pictures + 3 * begin, 0, count, values);
#pragma unroll
        for (int i = 0; i < kRun; ++i) {
            if (i >= count) continue;
            const uint8_t* colour = palette + 3 * labels[begin + i];
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                const float from_palette = alpha * static_cast<float>(colour[c]) + 0.5f;
                const float from_picture = (1.0f - alpha) * static_cast<float>(values[3 * i + c]);
                values[3 * i + c] = static_cast<uint8_t>(from_picture + from_palette);
            }
        }
        store_pixels(values, count, out + 3 * begin);
    }
}

}  // namespace atrous
