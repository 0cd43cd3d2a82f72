// Bilinear resize of coarse logits [C, h, w], fused with argmax or softmax, equal to
// torch.nn.functional.interpolate(mode="bilinear"). Only [C, w] rows are ever held, never a full-size map of logits.
#pragma once

#include <cstdint>

#include "geometry.hpp"

namespace atrous {

constexpr int kMaxLabels = 65536;

/// The coarse map [channels, coarse], the size of the result, and where its pixels lie on the map.
struct ResampleShape {
    int channels;
    Size coarse, out;
    Sampling sampling;
};

/// labels [out.height, out.width], in bytes or, of more than 256 channels, in 16 bits; of equal logits the lowest label
/// wins.
template <typename Label>
void resample_labels(const float* logits, const ResampleShape& shape, int threads, Label* labels);
/// probabilities [channels, out.height, out.width].
void resample_probabilities(const float* logits, const ResampleShape& shape, int threads, float* probabilities);
/// resized [channels, out.height, out.width].
void resample_logits(const float* logits, const ResampleShape& shape, int threads, float* resized);

}  // namespace atrous
