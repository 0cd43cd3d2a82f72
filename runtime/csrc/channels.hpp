// Logits of a network with one channel as logits of two classes: softmax(0, z) = (1 - p, p) with p = sigmoid(z).
// Twins: runtime/channels.py, runtime/kernels/channels.cuh.
#pragma once

#include <cstdint>

namespace atrous {

/// The logit whose sigmoid is the threshold: labels are 1 where logits are above it.
float threshold_logit(double threshold);

/// scores [2, cells]: `background`, then the logits [cells].
void add_background(const float* logits, std::int64_t cells, float background, float* scores);

/// labels [pixels] are 1 where the second of the probabilities [2, pixels] is above the threshold, otherwise 0.
void apply_threshold(const float* probabilities, std::int64_t pixels, float threshold, std::uint8_t* labels);

}  // namespace atrous
