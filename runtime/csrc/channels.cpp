#include "channels.hpp"

#include <algorithm>
#include <cmath>

namespace atrous {

float threshold_logit(double threshold) {
    return static_cast<float>(std::log(threshold / (1.0 - threshold)));
}

void add_background(const float* logits, std::int64_t cells, float background, float* scores) {
    std::fill_n(scores, cells, background);
    std::copy_n(logits, cells, scores + cells);
}

void apply_threshold(const float* probabilities, std::int64_t pixels, float threshold, std::uint8_t* labels) {
    for (std::int64_t i = 0; i < pixels; ++i) labels[i] = probabilities[pixels + i] > threshold ? 1 : 0;
}

}  // namespace atrous
