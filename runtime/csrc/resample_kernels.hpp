// One output row of a bilinear resize, fused with what is wanted of it.
#pragma once

#include <cstdint>

namespace atrous {

/// Where each output column comes from: left · weight_left + right · weight_right. Padded to whole vectors.
struct ColumnPlan {
    const std::int32_t* left;
    const std::int32_t* right;
    const float* weight_left;
    const float* weight_right;
};

struct ResampleKernels {
    /// out[i] = top[i] · weight_top + bottom[i] · weight_bottom.
    void (*blend_rows)(const float* top, const float* bottom, float weight_top, float weight_bottom, int count,
                       float* out);
    /// labels[x] = argmax over channels of the resized `rows` [channels, width]; of equals, the lowest channel.
    void (*labels)(const float* rows, int channels, int width, const ColumnPlan& plan, int columns,
                   std::uint8_t* labels);
    /// The same of more than 256 channels.
    void (*wide_labels)(const float* rows, int channels, int width, const ColumnPlan& plan, int columns,
                        std::uint16_t* labels);
    /// out[c · plane + x] = the resized channel.
    void (*logits)(const float* rows, int channels, int width, const ColumnPlan& plan, int columns, std::int64_t plane,
                   float* out);
    /// out[c · plane + x] = softmax over the resized channels.
    void (*probabilities)(const float* rows, int channels, int width, const ColumnPlan& plan, int columns,
                          std::int64_t plane, float* out);
};

const ResampleKernels& resample_kernels();

}  // namespace atrous
