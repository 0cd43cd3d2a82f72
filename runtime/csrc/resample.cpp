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

    AxisPlan(const AxisSampling& sampling, int out, bool align_corners) {
        const int padded = (out + kLanes - 1) / kLanes * kLanes;
        low.assign(padded, 0);
        high.assign(padded, 0);
        weight_low.assign(padded, 0.0f);
        weight_high.assign(padded, 0.0f);
        for (int i = 0; i < out; ++i) {
            const float centre = static_cast<float>(i) + (align_corners ? 0.0f : 0.5f);
            const float at = std::max(std::fma(sampling.scale, centre, sampling.shift), 0.0f);
            const int cell = std::min(static_cast<int>(at), sampling.cells - 1);
            low[i] = sampling.first + cell;
            high[i] = sampling.first + std::min(cell + 1, sampling.cells - 1);
            weight_high[i] = std::min(std::max(at - static_cast<float>(cell), 0.0f), 1.0f);
            weight_low[i] = 1.0f - weight_high[i];
        }
    }

    ColumnPlan columns() const { return {low.data(), high.data(), weight_low.data(), weight_high.data()}; }
};

/// Calls `row(rows, plan, y)` for each output row with the coarse rows [channels, width] blended for it.
template <typename RowBody>
void for_each_row(const float* logits, const ResampleShape& shape, int threads, const RowBody& row) {
    const AxisPlan vertical(shape.sampling.rows, shape.out.height, shape.sampling.align_corners);
    const AxisPlan horizontal(shape.sampling.columns, shape.out.width, shape.sampling.align_corners);
    const ColumnPlan columns = horizontal.columns();
    const std::int64_t plane = shape.coarse.area();
    constexpr std::int64_t rows_a_piece = 8;
    parallel_ranges(shape.out.height, rows_a_piece, threads, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> blended(static_cast<std::size_t>(shape.channels) * shape.coarse.width);
        for (std::int64_t y = begin; y < end; ++y) {
            for (int c = 0; c < shape.channels; ++c) {
                const float* channel = logits + c * plane;
                resample_kernels().blend_rows(channel + std::int64_t{vertical.low[y]} * shape.coarse.width,
                                              channel + std::int64_t{vertical.high[y]} * shape.coarse.width,
                                              vertical.weight_low[y], vertical.weight_high[y], shape.coarse.width,
                                              blended.data() + std::int64_t{c} * shape.coarse.width);
            }
            row(blended.data(), columns, y);
        }
    });
}

}  // namespace

template <typename Label>
void resample_labels(const float* logits, const ResampleShape& shape, int threads, Label* labels) {
    for_each_row(logits, shape, threads, [&](const float* rows, const ColumnPlan& plan, std::int64_t y) {
        Label* const row = labels + y * shape.out.width;
        if constexpr (sizeof(Label) == 1) {
            resample_kernels().labels(rows, shape.channels, shape.coarse.width, plan, shape.out.width, row);
        } else {
            resample_kernels().wide_labels(rows, shape.channels, shape.coarse.width, plan, shape.out.width, row);
        }
    });
}

template void resample_labels(const float*, const ResampleShape&, int, std::uint8_t*);
template void resample_labels(const float*, const ResampleShape&, int, std::uint16_t*);

void resample_probabilities(const float* logits, const ResampleShape& shape, int threads, float* probabilities) {
    const std::int64_t plane = shape.out.area();
    for_each_row(logits, shape, threads, [&](const float* rows, const ColumnPlan& plan, std::int64_t y) {
        resample_kernels().probabilities(rows, shape.channels, shape.coarse.width, plan, shape.out.width, plane,
                                         probabilities + y * shape.out.width);
    });
}

void resample_logits(const float* logits, const ResampleShape& shape, int threads, float* resized) {
    const std::int64_t plane = shape.out.area();
    for_each_row(logits, shape, threads, [&](const float* rows, const ColumnPlan& plan, std::int64_t y) {
        resample_kernels().logits(rows, shape.channels, shape.coarse.width, plan, shape.out.width, plane,
                                  resized + y * shape.out.width);
    });
}

}  // namespace atrous
