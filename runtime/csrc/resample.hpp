// Bilinear resize of coarse logits [C, h, w], fused with argmax or softmax, equal to
// torch.nn.functional.interpolate(mode="bilinear"). Only [C, w] rows are ever held, never a full-size map of logits.
#pragma once

#include <cstdint>

namespace atrous {

constexpr int kMaxLabels = 256;

/// The coarse map, the size to resize it to, and the top-left part of the result that is wanted.
struct ResampleShape {
    int channels, height, width;
    int full_height, full_width;
    int out_height, out_width;
    bool align_corners;
};

/// labels [out_height, out_width]; of equal logits the lowest label wins.
void resample_labels(const float* logits, const ResampleShape& shape, int threads, std::uint8_t* labels);
/// probabilities [channels, out_height, out_width].
void resample_probabilities(const float* logits, const ResampleShape& shape, int threads, float* probabilities);
/// resized [channels, out_height, out_width].
void resample_logits(const float* logits, const ResampleShape& shape, int threads, float* resized);

}  // namespace atrous
