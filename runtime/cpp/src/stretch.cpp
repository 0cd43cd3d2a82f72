#include "stretch.hpp"

#include <algorithm>
#include <cmath>

#include "crf/csrc/parallel.hpp"

namespace atrous::core {
namespace {

/// Weights are fixed-point with so many bits after the point: Pillow's choice, so that 8-bit sums fit 32 bits.
constexpr int kFractionBits = 22;
constexpr std::int32_t kHalf = 1 << (kFractionBits - 1);

/// For each output position along one axis, the samples that it is a weighted sum of.
struct AxisWeights {
    std::vector<int> first, count;
    std::vector<std::int32_t> weights;  ///< [outputs, stride]
    int stride;

    AxisWeights(int in, int out) : first(out), count(out) {
        const double scale = static_cast<double>(in) / out;
        const double reach = std::max(scale, 1.0);  // the filter widens when it shrinks a picture
        stride = static_cast<int>(std::ceil(reach)) * 2 + 1;
        weights.assign(static_cast<std::size_t>(out) * stride, 0);
        std::vector<double> exact(stride);
        for (int i = 0; i < out; ++i) {
            const double centre = (i + 0.5) * scale;
            first[i] = std::max(static_cast<int>(centre - reach + 0.5), 0);
            count[i] = std::min(static_cast<int>(centre + reach + 0.5), in) - first[i];
            double sum = 0;
            for (int k = 0; k < count[i]; ++k) {
                exact[k] = std::max(1.0 - std::fabs((k + first[i] - centre + 0.5) * (1.0 / reach)), 0.0);
                sum += exact[k];
            }
            for (int k = 0; k < count[i]; ++k) {
                const double share = sum != 0 ? exact[k] / sum : exact[k];
                weights[static_cast<std::size_t>(i) * stride + k] =
                    static_cast<std::int32_t>(0.5 + share * (1 << kFractionBits));
            }
        }
    }
};

std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

void resize_rows(const std::uint8_t* pixels, const Size& from, std::int64_t row_bytes, int width, int threads,
                 std::uint8_t* out) {
    const AxisWeights axis(from.width, width);
    parallel_ranges(from.height, 8, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t y = begin; y < end; ++y) {
            for (int x = 0; x < width; ++x) {
                const std::uint8_t* sample = pixels + y * row_bytes + std::int64_t{3} * axis.first[x];
                const std::int32_t* weight = axis.weights.data() + static_cast<std::size_t>(x) * axis.stride;
                std::int32_t sum[3] = {kHalf, kHalf, kHalf};
                for (int k = 0; k < axis.count[x]; ++k) {
                    for (int c = 0; c < 3; ++c) sum[c] += sample[3 * k + c] * weight[k];
                }
                for (int c = 0; c < 3; ++c) out[(y * width + x) * 3 + c] = rounded(sum[c]);
            }
        }
    });
}

void resize_columns(const std::uint8_t* pixels, const Size& from, std::int64_t row_bytes, int height, int threads,
                    std::uint8_t* out) {
    const AxisWeights axis(from.height, height);
    const std::int64_t samples = std::int64_t{3} * from.width;
    parallel_ranges(height, 8, threads, [&](std::int64_t begin, std::int64_t end) {
        std::vector<std::int32_t> sums(samples);
        for (std::int64_t y = begin; y < end; ++y) {
            std::fill(sums.begin(), sums.end(), kHalf);
            for (int k = 0; k < axis.count[y]; ++k) {
                const std::uint8_t* row = pixels + (axis.first[y] + k) * row_bytes;
                const std::int32_t weight = axis.weights[static_cast<std::size_t>(y) * axis.stride + k];
                for (std::int64_t i = 0; i < samples; ++i) sums[i] += row[i] * weight;
            }
            for (std::int64_t i = 0; i < samples; ++i) out[y * samples + i] = rounded(sums[i]);
        }
    });
}

}  // namespace

void stretch(const std::uint8_t* pixels, const Size& from, std::int64_t row_bytes, const Size& to, int threads,
             std::vector<std::uint8_t>& out) {
    out.resize(static_cast<std::size_t>(to.height) * to.width * 3);
    if (from.height == to.height) {
        resize_rows(pixels, from, row_bytes, to.width, threads, out.data());
        return;
    }
    if (from.width == to.width) {
        resize_columns(pixels, from, row_bytes, to.height, threads, out.data());
        return;
    }
    // Both passes round to 8 bits, so their order shows: Pillow 13 goes down first where that takes away more.
    const bool down_first = from.height - to.height > 2 * std::max(from.width - to.width, 0);
    const Size between = down_first ? Size{to.height, from.width} : Size{from.height, to.width};
    const std::int64_t between_bytes = std::int64_t{3} * between.width;
    std::vector<std::uint8_t> halfway(static_cast<std::size_t>(between.height) * between_bytes);
    if (down_first) {
        resize_columns(pixels, from, row_bytes, to.height, threads, halfway.data());
        resize_rows(halfway.data(), between, between_bytes, to.width, threads, out.data());
    } else {
        resize_rows(pixels, from, row_bytes, to.width, threads, halfway.data());
        resize_columns(halfway.data(), between, between_bytes, to.height, threads, out.data());
    }
}

}  // namespace atrous::core
