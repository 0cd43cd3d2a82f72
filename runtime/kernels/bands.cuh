// Images of other bands than RGB in bytes → network input, and the colours that the CRF compares: one thread a value.
// Twins: normalize_image and color_bands in runtime/csrc/image.cpp, Sums in runtime/csrc/resize.cpp.
#pragma once

#include "common.cuh"

namespace atrous {

/// Weighted sums of samples, rounded to what they are sums of.
template <typename T>
struct Sums;

template <>
struct Sums<uint8_t> {
    int value = 1 << (kWeightBits - 1);
    __device__ void add(uint8_t sample, int weight) { value += sample * weight; }
    __device__ uint8_t rounded() const {
        const int whole = value >> kWeightBits;
        return static_cast<uint8_t>(whole < 0 ? 0 : whole > 255 ? 255 : whole);
    }
};

template <>
struct Sums<uint16_t> {
    int64_t value = 1 << (kWeightBits - 1);
    __device__ void add(uint16_t sample, int weight) { value += static_cast<int64_t>(sample) * weight; }
    __device__ uint16_t rounded() const {
        const int64_t whole = value >> kWeightBits;
        return static_cast<uint16_t>(whole < 0 ? 0 : whole > 65535 ? 65535 : whole);
    }
};

template <>
struct Sums<float> {
    float value = 0.0f;
    __device__ void add(float sample, int weight) {
        value += sample * (static_cast<float>(weight) * (1.0f / (1 << kWeightBits)));
    }
    __device__ float rounded() const { return value; }
};

/// Resamples rows: pictures [rows, row_values] → out [rows, out_width, bands]; see frame_resize_rows.
template <typename T>
__device__ void resize_band_rows(const T* pictures, int rows, int row_values, int bands, const int32_t* first,
                                 const int32_t* weights, int taps, int out_width, T* out) {
    for (int job = global_thread(); job < rows * out_width * bands; job += all_threads()) {
        const int x = job / bands % out_width;
        const T* source = pictures + static_cast<size_t>(job / bands / out_width) * row_values + bands * first[x];
        Sums<T> sum;
        for (int i = 0; i < taps; ++i) sum.add(source[bands * i + job % bands], weights[x * taps + i]);
        out[job] = sum.rounded();
    }
}

/// Resamples columns: pictures [images, height, row_values] → out [images, out_height, row_values].
template <typename T>
__device__ void resize_band_columns(const T* pictures, int images, int height, int row_values, const int32_t* first,
                                    const int32_t* weights, int taps, int out_height, T* out) {
    for (int job = global_thread(); job < images * out_height * row_values; job += all_threads()) {
        const int y = job / row_values % out_height;
        const int image = job / row_values / out_height;
        const T* source = pictures + (static_cast<size_t>(image) * height + first[y]) * row_values + job % row_values;
        Sums<T> sum;
        for (int i = 0; i < taps; ++i) sum.add(source[static_cast<size_t>(i) * row_values], weights[y * taps + i]);
        out[job] = sum.rounded();
    }
}

/// pictures [images, height, width, bands], `row_values` and `image_values` from one to the next → out [images, bands,
/// out_height, out_width] = (picture − mean) / std, and padding around it; `constants` [3, bands] as in normalize.
template <typename T, typename Out>
__device__ void normalize_bands(const T* pictures, int images, int height, int width, int row_values, int image_values,
                                int bands, const float* constants, int top, int left, int out_height, int out_width,
                                Out* out) {
    for (int job = global_thread(); job < images * bands * out_height * out_width; job += all_threads()) {
        const int column = job % out_width - left;
        const int row = job / out_width % out_height - top;
        const int band = job / out_width / out_height % bands;
        const size_t image = job / out_width / out_height / bands;
        float value = constants[2 * bands + band];
        if (row >= 0 && row < height && column >= 0 && column < width) {
            const size_t at = image * image_values + static_cast<size_t>(row) * row_values;
            const float sample = static_cast<float>(pictures[at + static_cast<size_t>(column) * bands + band]);
            value = (sample - constants[band]) / constants[bands + band];
        }
        out[job] = from_float<Out>(value);
    }
}

/// rgb [pixels, 3] of pictures [pixels, bands]: (sample − low) · factor of the band of each colour, −1 for none,
/// rounded to nearest within 0 to 255. `colors` [3, 3] are the bands, their lows and their factors.
template <typename T>
__device__ void color_bands(const T* pictures, int pixels, int bands, const float* colors, uint8_t* rgb) {
    for (int job = global_thread(); job < 3 * pixels; job += all_threads()) {
        const int c = job % 3;
        const int band = static_cast<int>(colors[c]);
        const float low = colors[3 + c];
        const float sample = band < 0 ? low : static_cast<float>(pictures[static_cast<size_t>(job / 3) * bands + band]);
        const float color = fminf(fmaxf((sample - low) * colors[6 + c], 0.0f), 255.0f);
        rgb[job] = static_cast<uint8_t>(color + 0.5f);
    }
}

#define ATROUS_BAND_KERNELS(suffix, T)                                                                                 \
    extern "C" __global__ void frame_resize_band_rows_##suffix(const T* pictures, int rows, int row_values, int bands, \
                                                               const int32_t* first, const int32_t* weights, int taps, \
                                                               int out_width, T* out) {                                \
        resize_band_rows(pictures, rows, row_values, bands, first, weights, taps, out_width, out);                     \
    }                                                                                                                  \
    extern "C" __global__ void frame_normalize_bands_##suffix##_f32(                                                   \
        const T* pictures, int images, int height, int width, int row_values, int image_values, int bands,             \
        const float* constants, int top, int left, int out_height, int out_width, float* out) {                        \
        normalize_bands(pictures, images, height, width, row_values, image_values, bands, constants, top, left,        \
                        out_height, out_width, out);                                                                   \
    }                                                                                                                  \
    extern "C" __global__ void frame_normalize_bands_##suffix##_f16(                                                   \
        const T* pictures, int images, int height, int width, int row_values, int image_values, int bands,             \
        const float* constants, int top, int left, int out_height, int out_width, __half* out) {                       \
        normalize_bands(pictures, images, height, width, row_values, image_values, bands, constants, top, left,        \
                        out_height, out_width, out);                                                                   \
    }                                                                                                                  \
    extern "C" __global__ void frame_color_bands_##suffix(const T* pictures, int pixels, int bands,                    \
                                                          const float* colors, uint8_t* rgb) {                         \
        color_bands(pictures, pixels, bands, colors, rgb);                                                             \
    }

/// Of bytes, frame_resize_columns does it.
#define ATROUS_BAND_COLUMNS_KERNEL(suffix, T)                                                                    \
    extern "C" __global__ void frame_resize_band_columns_##suffix(                                               \
        const T* pictures, int images, int height, int row_values, const int32_t* first, const int32_t* weights, \
        int taps, int out_height, T* out) {                                                                      \
        resize_band_columns(pictures, images, height, row_values, first, weights, taps, out_height, out);        \
    }

ATROUS_BAND_KERNELS(u8, uint8_t)
ATROUS_BAND_KERNELS(u16, uint16_t)
ATROUS_BAND_KERNELS(f32, float)
ATROUS_BAND_COLUMNS_KERNEL(u16, uint16_t)
ATROUS_BAND_COLUMNS_KERNEL(f32, float)

}  // namespace atrous
