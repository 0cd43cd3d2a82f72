#include "resampling.hpp"

#include <algorithm>
#include <cmath>

namespace atrous {

Resampling::Resampling(int in, int out) : first(out) {
    const double scale = static_cast<double>(in) / out;
    const double reach = std::max(scale, 1.0);  // the filter widens when it shrinks an image
    taps = std::min(static_cast<int>(std::ceil(reach)) * 2 + 1, in);
    weights.assign(static_cast<std::size_t>(out) * taps, 0);
    std::vector<double> triangle;
    for (int i = 0; i < out; ++i) {
        const double centre = (i + 0.5) * scale;
        const int begin = std::max(static_cast<int>(centre - reach + 0.5), 0);
        const int end = std::min(static_cast<int>(centre + reach + 0.5), in);
        triangle.clear();
        double sum = 0;
        for (int x = begin; x < end; ++x) {
            triangle.push_back(std::max(1.0 - std::fabs((x - centre + 0.5) * (1.0 / reach)), 0.0));
            sum += triangle.back();
        }
        // No tap may lie outside the image, so those without a weight go before the first.
        first[i] = std::min(begin, in - taps);
        std::int32_t* target = weights.data() + static_cast<std::size_t>(i) * taps + (begin - first[i]);
        for (const double weight : triangle) {
            *target++ = static_cast<std::int32_t>(0.5 + weight / sum * (1 << kWeightBits));
        }
    }
}

std::vector<ResizePass> plan_resize(int from_height, int from_width, int to_height, int to_width) {
    if (from_height == to_height) return {{false, to_height, to_width, {from_width, to_width}}};
    if (from_width == to_width) return {{true, to_height, to_width, {from_height, to_height}}};
    const Resampling across(from_width, to_width);
    const Resampling down(from_height, to_height);
    if (from_height - to_height > 2 * std::max(from_width - to_width, 0)) {
        return {{true, to_height, from_width, down}, {false, to_height, to_width, across}};
    }
    return {{false, from_height, to_width, across}, {true, to_height, to_width, down}};
}

}  // namespace atrous
