// Coarse logits → full-size labels or probabilities: bilinear resizing fused with argmax or softmax, so that resized
// logits exist in registers only. Twins: runtime/csrc/resample.cpp and resample_kernels.inl.
#pragma once

#include "common.cuh"
#include "native/kernels/math.cuh"

namespace atrous {

/// Where one output position lies between two samples: at `low`, plus `weight` of the way to the next.
struct Sample {
    int low;
    float weight;
};

/// The sample after `low`, of `in`.
__device__ inline int next_sample(int low, int in) {
    return low + 1 < in ? low + 1 : in - 1;
}

/// One axis of the cells that count, AxisSampling of runtime/csrc/geometry.hpp; `centre` is 0 with aligned corners,
/// else ½.
struct Axis {
    int cells;
    float scale, shift, centre;
};

__device__ inline Sample sample_at(int i, const Axis& axis) {
    const float at = fmaxf(fmaf(axis.scale, static_cast<float>(i) + axis.centre, axis.shift), 0.0f);
    const int floor = static_cast<int>(at);
    Sample sample;
    sample.low = floor < axis.cells - 1 ? floor : axis.cells - 1;
    sample.weight = fminf(fmaxf(at - static_cast<float>(sample.low), 0.0f), 1.0f);
    return sample;
}

/// Logits [images, channels, rows, columns], the cells that count of a larger map: `plane` and `width` cells from one
/// channel and one row to the next.
struct Cells {
    int plane, width;
    Axis rows, columns;

    __device__ Cells(int plane, int width, int rows, int columns, float row_scale, float column_scale, float row_shift,
                     float column_shift, int align_corners)
        : plane(plane),
          width(width),
          rows{rows, row_scale, row_shift, align_corners != 0 ? 0.0f : 0.5f},
          columns{columns, column_scale, column_shift, align_corners != 0 ? 0.0f : 0.5f} {}
};

/// A run of output pixels: which logits it is blended from.
template <typename T>
struct RunSampler {
    const T* top;  ///< of channel 0
    int below;     ///< from a sample of `top` to the one of the next row
    float weight_bottom;
    int width;  ///< in cells that count
    Sample columns[kRun];
    int plane;

    __device__ RunSampler(const T* logits, size_t image, int channels, const Cells& cells, int y, int x)
        : width(cells.columns.cells), plane(cells.plane) {
        const Sample row = sample_at(y, cells.rows);
        top = logits + image * channels * plane + static_cast<size_t>(row.low) * cells.width;
        below = (next_sample(row.low, cells.rows.cells) - row.low) * cells.width;
        weight_bottom = row.weight;
#pragma unroll
        for (int i = 0; i < kRun; ++i) columns[i] = sample_at(x + i, cells.columns);
    }

    /// The resized logits of one channel. Neighbours mostly lie between the same samples, which are read once.
    __device__ void read(int channel, float (&values)[kRun]) const {
        const T* above = top + channel * plane;
        const T* under = above + below;
        const float weight_top = 1.0f - weight_bottom;
        float left = 0.0f;
        float right = 0.0f;
#pragma unroll
        for (int i = 0; i < kRun; ++i) {
            const int at = columns[i].low;
            if (i == 0 || at != columns[i - 1].low) {
                const int next = next_sample(at, width);
                left = to_float(above[at]) * weight_top + to_float(under[at]) * weight_bottom;
                right = to_float(above[next]) * weight_top + to_float(under[next]) * weight_bottom;
            }
            values[i] = left * (1.0f - columns[i].weight) + right * columns[i].weight;
        }
    }
};

/// Calls `body(sampler, image, y, x)` for each run of the wanted part [images, out_height, out_width].
template <typename T, typename Body>
__device__ void for_each_run(const T* logits, int images, int channels, const Cells& cells, int out_height,
                             int out_width, const Body& body) {
    const int runs = runs_of(out_width);
    for (int job = global_thread(); job < images * out_height * runs; job += all_threads()) {
        const int x = job % runs * kRun;
        const int y = job / runs % out_height;
        const size_t image = job / runs / out_height;
        body(RunSampler<T>(logits, image, channels, cells, y, x), image, y, x);
    }
}

/// labels [images, out_height, out_width]; of equal logits the lowest channel wins.
template <typename T, typename Label>
__device__ void write_labels(const T* logits, int images, int channels, const Cells& cells, int out_height,
                             int out_width, Label* labels) {
    const auto body = [&](const RunSampler<T>& sampler, size_t image, int y, int x) {
        float best[kRun];
        Label label[kRun] = {};
        sampler.read(0, best);
#pragma unroll 1
        for (int c = 1; c < channels; ++c) {
            float values[kRun];
            sampler.read(c, values);
#pragma unroll
            for (int i = 0; i < kRun; ++i) {
                const bool better = values[i] > best[i];
                best[i] = better ? values[i] : best[i];
                label[i] = better ? static_cast<Label>(c) : label[i];
            }
        }
        store_run(label, run_length(x, out_width), labels + (image * out_height + y) * out_width + x);
    };
    for_each_run(logits, images, channels, cells, out_height, out_width, body);
}

/// probabilities [images, channels, out_height, out_width]. Logits are resized three times, for the maximum, the sum
/// and the result: cheaper than to write and read them, which at 19 classes on 1024×2048 pixels are 159 MB.
template <typename T>
__device__ void write_probabilities(const T* logits, int images, int channels, const Cells& cells, int out_height,
                                    int out_width, float* probabilities) {
    const auto body = [&](const RunSampler<T>& sampler, size_t image, int y, int x) {
        float values[kRun];
        float largest[kRun];
        float scale[kRun] = {};
        sampler.read(0, largest);
#pragma unroll 1
        for (int c = 1; c < channels; ++c) {
            sampler.read(c, values);
#pragma unroll
            for (int i = 0; i < kRun; ++i) largest[i] = values[i] > largest[i] ? values[i] : largest[i];
        }
#pragma unroll 1
        for (int c = 0; c < channels; ++c) {
            sampler.read(c, values);
#pragma unroll
            for (int i = 0; i < kRun; ++i) scale[i] += exp_nonpositive(values[i] - largest[i]);
        }
#pragma unroll
        for (int i = 0; i < kRun; ++i) scale[i] = 1.0f / scale[i];
#pragma unroll 1
        for (int c = 0; c < channels; ++c) {
            sampler.read(c, values);
#pragma unroll
            for (int i = 0; i < kRun; ++i) values[i] = exp_nonpositive(values[i] - largest[i]) * scale[i];
            float* plane = probabilities + (image * channels + c) * out_height * out_width;
            store_run(values, run_length(x, out_width), plane + static_cast<size_t>(y) * out_width + x);
        }
    };
    for_each_run(logits, images, channels, cells, out_height, out_width, body);
}

/// first_bad = the smaller of its value and the index of the first logit that is NaN or infinite.
template <typename T>
__device__ void find_not_finite(const T* logits, int count, uint32_t* first_bad) {
    for (int i = global_thread(); i < count; i += all_threads()) {
        if (!isfinite(to_float(logits[i]))) atomicMin(first_bad, static_cast<uint32_t>(i));
    }
}

/// Labels in bytes, or of more than 256 channels in 16 bits.
#define ATROUS_LABELS_KERNEL(name, T, Label)                                                                          \
    extern "C" __global__ void __launch_bounds__(kThreads, 4)                                                         \
        name(const T* logits, int images, int channels, int plane, int width, int rows, int columns, float row_scale, \
             float column_scale, float row_shift, float column_shift, int align_corners, int out_height,              \
             int out_width, Label* labels) {                                                                          \
        const Cells cells(plane, width, rows, columns, row_scale, column_scale, row_shift, column_shift,              \
                          align_corners);                                                                             \
        write_labels(logits, images, channels, cells, out_height, out_width, labels);                                 \
    }

#define ATROUS_RESAMPLE_KERNELS(suffix, T)                                                                         \
    ATROUS_LABELS_KERNEL(frame_labels_##suffix, T, uint8_t)                                                        \
    ATROUS_LABELS_KERNEL(frame_wide_labels_##suffix, T, uint16_t)                                                  \
    extern "C" __global__ void __launch_bounds__(kThreads, 4) frame_probabilities_##suffix(                        \
        const T* logits, int images, int channels, int plane, int width, int rows, int columns, float row_scale,   \
        float column_scale, float row_shift, float column_shift, int align_corners, int out_height, int out_width, \
        float* probabilities) {                                                                                    \
        const Cells cells(plane, width, rows, columns, row_scale, column_scale, row_shift, column_shift,           \
                          align_corners);                                                                          \
        write_probabilities(logits, images, channels, cells, out_height, out_width, probabilities);                \
    }                                                                                                              \
    extern "C" __global__ void frame_find_not_finite_##suffix(const T* logits, int count, uint32_t* first_bad) {   \
        find_not_finite(logits, count, first_bad);                                                                 \
    }

ATROUS_RESAMPLE_KERNELS(f32, float)
ATROUS_RESAMPLE_KERNELS(f16, __half)

}  // namespace atrous
