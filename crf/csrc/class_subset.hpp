// Which classes take part in inference: those that are likely somewhere. See docs/crf.md for what it costs.
#pragma once

#include <cstdint>
#include <vector>

namespace atrous {

/// The lowest probability of a unary, and what a class that was left out has in the result.
constexpr float kProbabilityFloor = 1e-5f;

struct ClassSubset {
    int classes;            ///< of the probabilities
    std::vector<int> kept;  ///< in ascending order; the field has one channel for each

    static ClassSubset all(int classes);

    /// What the classes that were kept share, so that all sum to 1.
    float kept_mass() const { return 1.0f - kProbabilityFloor * static_cast<float>(left_out().size()); }
    std::vector<int> left_out() const;
};

/// The classes whose probability, in planar [classes, pixels], is `floor` or more in any pixel, and as many of the
/// others, the likeliest first, as their rows have room for anyway. With floor 0 all of them. No pixel loses half of
/// its probability: the floor counts as at most 1 / 2·classes. A temperature above 1 makes unlikely classes likelier,
/// p^(1/temperature) at most, so the floor counts for those powers.
ClassSubset likely_classes(const float* planar, int classes, std::int64_t pixels, float floor, float temperature,
                           int threads);

/// Throws CrfError unless the bound on what a floor changes holds: floors of 0 to 0.01, weights of 0 or more.
void check_class_floor(double floor, double gaussian_weight, double bilateral_weight);

}  // namespace atrous
