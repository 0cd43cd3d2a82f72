#include "resize.hpp"

#include <algorithm>
#include <vector>

#include "native/parallel.hpp"
#include "resampling.hpp"

namespace atrous {
namespace {

constexpr std::int32_t kHalf = 1 << (kWeightBits - 1);

std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

void resize_rows(const std::uint8_t* pixels, const Size& from, std::int64_t row_bytes, const Resampling& axis,
                 int threads, std::uint8_t* out) {
    const auto width = static_cast<int>(axis.first.size());
    parallel_ranges(from.height, 8, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t y = begin; y < end; ++y) {
            for (int x = 0; x < width; ++x) {
                const std::uint8_t* sample = pixels + y * row_bytes + std::int64_t{3} * axis.first[x];
                const std::int32_t* weight = axis.weights.data() + static_cast<std::size_t>(x) * axis.taps;
                std::int32_t sum[3] = {kHalf, kHalf, kHalf};
                for (int k = 0; k < axis.taps; ++k) {
                    for (int c = 0; c < 3; ++c) sum[c] += sample[3 * k + c] * weight[k];
                }
                for (int c = 0; c < 3; ++c) out[(y * width + x) * 3 + c] = rounded(sum[c]);
            }
        }
    });
}

void resize_columns(const std::uint8_t* pixels, const Size& from, std::int64_t row_bytes, const Resampling& axis,
                    int threads, std::uint8_t* out) {
    const auto height = static_cast<std::int64_t>(axis.first.size());
    const std::int64_t samples = std::int64_t{3} * from.width;
    parallel_ranges(height, 8, threads, [&](std::int64_t begin, std::int64_t end) {
        std::vector<std::int32_t> sums(samples);
        for (std::int64_t y = begin; y < end; ++y) {
            std::fill(sums.begin(), sums.end(), kHalf);
            for (int k = 0; k < axis.taps; ++k) {
                const std::uint8_t* row = pixels + (axis.first[y] + k) * row_bytes;
                const std::int32_t weight = axis.weights[static_cast<std::size_t>(y) * axis.taps + k];
                for (std::int64_t i = 0; i < samples; ++i) sums[i] += row[i] * weight;
            }
            for (std::int64_t i = 0; i < samples; ++i) out[y * samples + i] = rounded(sums[i]);
        }
    });
}

}  // namespace

void resize_pixels(const std::uint8_t* pixels, const Size& from, std::int64_t row_bytes, const Size& to, int threads,
                   std::uint8_t* out) {
    const std::vector<ResizePass> passes = plan_resize(from.height, from.width, to.height, to.width);
    const auto resize = [&](const ResizePass& pass, const std::uint8_t* source, const Size& size, std::int64_t bytes,
                            std::uint8_t* target) {
        (pass.is_down ? resize_columns : resize_rows)(source, size, bytes, pass.resampling, threads, target);
    };
    if (passes.size() == 1) return resize(passes[0], pixels, from, row_bytes, out);
    const Size half_way{passes[0].height, passes[0].width};
    std::vector<std::uint8_t> between(static_cast<std::size_t>(3 * half_way.area()));
    resize(passes[0], pixels, from, row_bytes, between.data());
    resize(passes[1], between.data(), half_way, std::int64_t{3} * half_way.width, out);
}

}  // namespace atrous
