#include "class_subset.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "native/error.hpp"
#include "native/parallel.hpp"

namespace atrous {
namespace {

constexpr double kHighestFloor = 0.01;

/// Stands for a class that is kept whatever its maximum.
constexpr float kAbove = 2.0f;

/// The largest value, or kAbove as soon as one is not below `floor`; NaN is not, and is found where unaries are read.
float largest_below(const float* values, std::int64_t count, float floor) {
    constexpr std::int64_t stretch = 4096;
    float largest = 0.0f;
    for (std::int64_t begin = 0; begin < count; begin += stretch) {
        const std::int64_t end = std::min(begin + stretch, count);
        bool is_below = true;
        for (std::int64_t i = begin; i < end; ++i) {
            is_below &= values[i] < floor;
            largest = values[i] > largest ? values[i] : largest;
        }
        if (!is_below) return kAbove;
    }
    return largest;
}

/// The probability whose power 1 / temperature is `floor`. Below 1 a temperature makes unlikely classes unlikelier
/// still.
float lowest_likely(float floor, float temperature) {
    return temperature > 1.0f ? std::pow(floor, temperature) : floor;
}

/// Channels that take no more memory and time than `channels`.
int room_for(int channels) {
    return channels <= 4 ? 4 : (channels + 7) / 8 * 8;
}

}  // namespace

ClassSubset ClassSubset::all(int classes) {
    ClassSubset subset{classes, std::vector<int>(classes)};
    std::iota(subset.kept.begin(), subset.kept.end(), 0);
    return subset;
}

std::vector<int> ClassSubset::left_out() const {
    std::vector<int> others;
    for (int c = 0; c < classes; ++c) {
        if (!std::binary_search(kept.begin(), kept.end(), c)) others.push_back(c);
    }
    return others;
}

ClassSubset likely_classes(const float* planar, int classes, std::int64_t pixels, float floor, float temperature,
                           int threads) {
    ClassSubset subset = ClassSubset::all(classes);
    if (floor <= 0.0f) return subset;
    const float lowest = lowest_likely(std::min(floor, 0.5f / static_cast<float>(classes)), temperature);
    if (lowest <= kProbabilityFloor && temperature > 1.0f) return subset;  // unaries have no smaller probability
    std::vector<float> largest(classes);
    parallel_pieces(classes, threads,
                    [&](std::int64_t c) { largest[c] = largest_below(planar + c * pixels, pixels, lowest); });
    std::stable_sort(subset.kept.begin(), subset.kept.end(), [&](int a, int b) { return largest[a] > largest[b]; });
    const auto above = std::count(largest.begin(), largest.end(), kAbove);
    subset.kept.resize(std::min(classes, room_for(static_cast<int>(above))));
    std::sort(subset.kept.begin(), subset.kept.end());
    return subset;
}

void check_class_floor(double floor, double gaussian_weight, double bilateral_weight) {
    char text[200];
    if (!(floor >= 0.0 && floor <= kHighestFloor)) {
        std::snprintf(text, sizeof text, "class_floor must be 0 to %g, got %g", kHighestFloor, floor);
        throw CrfError(text);
    }
    if (floor > 0.0 && (gaussian_weight < 0.0 || bilateral_weight < 0.0)) {
        std::snprintf(text, sizeof text,
                      "class_floor needs weights of 0 or more: a negative weight can make a class likely that is "
                      "nowhere so. Got gaussian_weight %g and bilateral_weight %g; set class_floor to 0",
                      gaussian_weight, bilateral_weight);
        throw CrfError(text);
    }
}

}  // namespace atrous
