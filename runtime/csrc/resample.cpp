#include "resample.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "native/parallel.hpp"
#include "resample_kernels.hpp"

namespace atrous {
namespace {

constexpr int kLanes = 8;

/// The two samples behind each output position along one axis. Rounded as PyTorch rounds, in single precision with one
/// fused multiply-add: the last bit of a position moves its sample by up to 3e-5 of the difference between neighbours.
struct AxisPlan {
    std::vector<std::int32_t> low, high;
    std::vector<float> weight_low, weight_high;

    AxisPlan(int in, int full, int out, bool align_corners) {
        const int padded = (out + kLanes - 1) / kLanes * kLanes;
        low.assign(padded, 0);
        high.assign(padded, 0);
        weight_low.assign(padded, 0.0f);
        weight_high.assign(padded, 0.0f);
        for (int i = 0; i < out; ++i) {
            const float at = source_position(i, in, full, align_corners);
            low[i] = std::min(static_cast<std::int32_t>(at), in - 1);
            high[i] = std::min(low[i] + 1, in - 1);
            weight_high[i] = std::min(std::max(at - static_cast<float>(low[i]), 0.0f), 1.0f);
            weight_low[i] = 1.0f - weight_high[i];
        }
    }

    ColumnPlan columns() const { return {low.data(), high.data(), weight_low.data(), weight_high.data()}; }

  private:
    static float source_position(int i, int in, int full, bool align_corners) {
        if (align_corners) {
            const float scale = full > 1 ? static_cast<float>(in - 1) / static_cast<float>(full - 1) : 0.0f;
            return scale * static_cast<float>(i);
        }
        const float scale = static_cast<float>(in) / static_cast<float>(full);
        return std::max(std::fma(scale, static_cast<float>(i) + 0.5f, -0.5f), 0.0f);
    }
};

/// Calls `row(rows, plan, y)` for each output row with the coarse rows [channels, width] blended for it.
template <typename RowBody>
void for_each_row(const float* logits, const ResampleShape& shape, int threads, const RowBody& row) {
    const AxisPlan vertical(shape.height, shape.full_height, shape.out_height, shape.align_corners);
    const AxisPlan horizontal(shape.width, shape.full_width, shape.out_width, shape.align_corners);
    const ColumnPlan columns = horizontal.columns();
    const std::int64_t plane = std::int64_t{shape.height} * shape.width;
    constexpr std::int64_t rows_a_piece = 8;
    parallel_ranges(shape.out_height, rows_a_piece, threads, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> blended(static_cast<std::size_t>(shape.channels) * shape.width);
        for (std::int64_t y = begin; y < end; ++y) {
            for (int c = 0; c < shape.channels; ++c) {
                const float* channel = logits + c * plane;
                resample_kernels().blend_rows(channel + std::int64_t{vertical.low[y]} * shape.width,
                                              channel + std::int64_t{vertical.high[y]} * shape.width,
                                              vertical.weight_low[y], vertical.weight_high[y], shape.width,
                                              blended.data() + std::int64_t{c} * shape.width);
            }
            row(blended.data(), columns, y);
        }
    });
}

}  // namespace

void resample_labels(const float* logits, const ResampleShape& shape, int threads, std::uint8_t* labels) {
    for_each_row(logits, shape, threads, [&](const float* rows, const ColumnPlan& plan, std::int64_t y) {
        resample_kernels().labels(rows, shape.channels, shape.width, plan, shape.out_width,
                                  labels + y * shape.out_width);
    });
}

void resample_probabilities(const float* logits, const ResampleShape& shape, int threads, float* probabilities) {
    const std::int64_t plane = std::int64_t{shape.out_height} * shape.out_width;
    for_each_row(logits, shape, threads, [&](const float* rows, const ColumnPlan& plan, std::int64_t y) {
        resample_kernels().probabilities(rows, shape.channels, shape.width, plan, shape.out_width, plane,
                                         probabilities + y * shape.out_width);
    });
}

void resample_logits(const float* logits, const ResampleShape& shape, int threads, float* resized) {
    const std::int64_t plane = std::int64_t{shape.out_height} * shape.out_width;
    for_each_row(logits, shape, threads, [&](const float* rows, const ColumnPlan& plan, std::int64_t y) {
        resample_kernels().logits(rows, shape.channels, shape.width, plan, shape.out_width, plane,
                                  resized + y * shape.out_width);
    });
}

}  // namespace atrous
