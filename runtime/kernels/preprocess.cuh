// Pictures → network input: Pillow's resampling and normalisation, as `prepare_image` does them on the CPU.
#pragma once

#include "common.cuh"

namespace atrous {

/// Rounds a weighted sum of bytes to nearest, within 0 to 255.
__device__ inline uint8_t round_sum(int sum) {
    const int value = (sum + (1 << (kWeightBits - 1))) >> kWeightBits;
    return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

/// Resamples rows: pictures [rows, ·, 3], `row_bytes` from one row to the next → out [rows, out_width, 3]. Output
/// column x is the sum over i < taps of weights[x, i] · column first[x] + i; weights beyond a picture are 0, and
/// first[x] + i stays inside it.
extern "C" __global__ void frame_resize_rows(const uint8_t* pictures, int rows, int row_bytes, const int32_t* first,
                                             const int32_t* weights, int taps, int out_width, uint8_t* out) {
    for (int job = global_thread(); job < rows * out_width; job += all_threads()) {
        const int x = job % out_width;
        const uint8_t* source = pictures + static_cast<size_t>(job / out_width) * row_bytes + 3 * first[x];
        int sums[3] = {};
        for (int i = 0; i < taps; ++i) {
            const int weight = weights[x * taps + i];
#pragma unroll
            for (int c = 0; c < 3; ++c) sums[c] += weight * source[3 * i + c];
        }
        uint8_t* target = out + 3 * static_cast<size_t>(job);
#pragma unroll
        for (int c = 0; c < 3; ++c) target[c] = round_sum(sums[c]);
    }
}

/// Resamples columns: pictures [images, height, row_bytes] → out [images, out_height, row_bytes]; otherwise as above.
extern "C" __global__ void frame_resize_columns(const uint8_t* pictures, int images, int height, int row_bytes,
                                                const int32_t* first, const int32_t* weights, int taps, int out_height,
                                                uint8_t* out) {
    for (int job = global_thread(); job < images * out_height * row_bytes; job += all_threads()) {
        const int y = job / row_bytes % out_height;
        const int image = job / row_bytes / out_height;
        const uint8_t* source =
            pictures + (static_cast<size_t>(image) * height + first[y]) * row_bytes + job % row_bytes;
        int sum = 0;
        for (int i = 0; i < taps; ++i) sum += weights[y * taps + i] * source[static_cast<size_t>(i) * row_bytes];
        out[job] = round_sum(sum);
    }
}

/// Exchanges the first and the last of three channels.
extern "C" __global__ void frame_swap_channels(uint8_t* pictures, int pixels) {
    for (int job = global_thread(); job < pixels; job += all_threads()) {
        uint8_t* pixel = pictures + 3 * static_cast<size_t>(job);
        const uint8_t first = pixel[0];
        pixel[0] = pixel[2];
        pixel[2] = first;
    }
}

/// pictures [images, height, width, 3], `row_bytes` and `image_bytes` from one to the next → out [images, 3,
/// out_height, out_width] = (picture − mean) / std; around the picture, whose corner lies at `top` and `left`, padding.
/// `constants` [3, 3] are mean, std and padding by output channel, the last one normalised already. With `swap_rgb`,
/// output channels are B, G, R.
template <typename T>
__device__ void normalize(const uint8_t* pictures, int images, int height, int width, int row_bytes, int image_bytes,
                          const float* constants, int swap_rgb, int top, int left, int out_height, int out_width,
                          T* out) {
    const int runs = runs_of(out_width);
    for (int job = global_thread(); job < images * out_height * runs; job += all_threads()) {
        const int x = job % runs * kRun;
        const int y = job / runs % out_height;
        const size_t image = job / runs / out_height;
        const int row = y - top;
        const int begin = run_length(x, left);  // of the run, left of the picture
        const int column = x + begin - left;
        const int rest = run_length(column, width);
        const int covered = rest < kRun - begin ? rest : kRun - begin;
        const int end = row >= 0 && row < height ? begin + covered : begin;
        uint8_t pixels[3 * kRun];
        // Nothing is read of a row that does not exist.
        const size_t source = image * image_bytes + static_cast<size_t>(row) * row_bytes + 3 * column;
        load_pixels(pictures + (end > begin ? source : 0), begin, end - begin, pixels);
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const float mean = constants[c];
            const float std = constants[3 + c];
            const float padding = constants[6 + c];
            float values[kRun];
#pragma unroll
            for (int i = 0; i < kRun; ++i) {
                const uint8_t byte = swap_rgb != 0 ? pixels[3 * i + 2 - c] : pixels[3 * i + c];
                values[i] = i >= begin && i < end ? (static_cast<float>(byte) - mean) / std : padding;
            }
            store_run(values, run_length(x, out_width), out + ((image * 3 + c) * out_height + y) * out_width + x);
        }
    }
}

#define ATROUS_NORMALIZE_KERNEL(suffix, T)                                                                             \
    extern "C" __global__ void frame_normalize_##suffix(                                                               \
        const uint8_t* pictures, int images, int height, int width, int row_bytes, int image_bytes,                    \
        const float* constants, int swap_rgb, int top, int left, int out_height, int out_width, T* out) {              \
        normalize(pictures, images, height, width, row_bytes, image_bytes, constants, swap_rgb, top, left, out_height, \
                  out_width, out);                                                                                     \
    }

ATROUS_NORMALIZE_KERNEL(f32, float)
ATROUS_NORMALIZE_KERNEL(f16, __half)

}  // namespace atrous
