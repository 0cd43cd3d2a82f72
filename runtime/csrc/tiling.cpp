#include "tiling.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "native/error.hpp"

namespace atrous {
namespace {

/// Share of a tile that it has in common with the next one.
constexpr double kOverlap = 0.25;
/// Share of the overlap, next to a tile's inner edge, that is left to the other tile: the network saw zeros beyond.
constexpr float kMargin = 0.25f;
/// Weight of the margin, for cells that no other tile covers.
constexpr float kMinWeight = 1e-6f;

struct Axis {
    int tile, covered;
    std::vector<int> origins;
};

Axis plan_axis(int needed, int maximum, int multiple) {
    if (needed <= maximum) return {needed, needed, {0}};
    const int step = std::max(multiple, static_cast<int>(maximum * (1 - kOverlap)) / multiple * multiple);
    const int count = 1 + (needed - maximum + step - 1) / step;
    Axis axis{maximum, needed, {}};
    // The last tile ends at the end, on the grid: needed and maximum differ by a multiple.
    for (int i = 0; i < count; ++i) axis.origins.push_back(std::min(i * step, needed - maximum));
    return axis;
}

/// Blending weights along one axis: rising from an inner edge at the start, falling to one at the end, 1 between.
void add_ramp(int length, bool has_before, bool has_after, std::vector<float>& weights) {
    const auto overlap = static_cast<float>(std::max(1, static_cast<int>(length * kOverlap)));
    const std::size_t begin = weights.size();
    weights.resize(begin + length, 1.0f);
    float* ramp = weights.data() + begin;
    for (int i = 0; i < length; ++i) {
        const float depth = (static_cast<float>(i) + 0.5f) / overlap;
        const float rising = std::min(std::max((depth - kMargin) / (1 - 2 * kMargin), kMinWeight), 1.0f);
        if (has_before) ramp[i] = std::min(ramp[i], rising);
        if (has_after) ramp[length - 1 - i] = std::min(ramp[length - 1 - i], rising);
    }
}

/// Calls `body(tile, row weights, column weights, cell of its corner)` for the tiles in their order.
template <typename Body>
void for_each_tile(const TilePlan& plan, const Body& body) {
    const Size cells = plan.coarse(plan.tile);
    const int whole_width = plan.coarse(plan.full).width;
    const std::vector<float> rows = plan.row_weights();
    const std::vector<float> columns = plan.column_weights();
    for (std::size_t i = 0; i < plan.tops.size(); ++i) {
        for (std::size_t j = 0; j < plan.lefts.size(); ++j) {
            const auto corner = std::size_t(plan.tops[i] / plan.stride) * whole_width + plan.lefts[j] / plan.stride;
            body(plan.tops[i], plan.lefts[j], rows.data() + i * cells.height, columns.data() + j * cells.width, corner);
        }
    }
}

}  // namespace

Size TilePlan::coarse(const Size& pixels) const {
    return {(pixels.height - offset) / stride + offset, (pixels.width - offset) / stride + offset};
}

std::vector<float> TilePlan::row_weights() const {
    std::vector<float> weights;
    for (const int top : tops) add_ramp(coarse(tile).height, top > 0, top + tile.height < full.height, weights);
    return weights;
}

std::vector<float> TilePlan::column_weights() const {
    std::vector<float> weights;
    for (const int left : lefts) add_ramp(coarse(tile).width, left > 0, left + tile.width < full.width, weights);
    return weights;
}

std::vector<float> TilePlan::sum_weights() const {
    const Size cells = coarse(tile);
    const Size whole = coarse(full);
    std::vector<float> sums(static_cast<std::size_t>(whole.area()), 0.0f);
    for_each_tile(*this, [&](int, int, const float* rows, const float* columns, std::size_t corner) {
        for (int y = 0; y < cells.height; ++y) {
            float* target = sums.data() + corner + static_cast<std::size_t>(y) * whole.width;
            for (int x = 0; x < cells.width; ++x) target[x] += std::min(rows[y], columns[x]);
        }
    });
    return sums;
}

void TilePlan::check_logits(const Size& logits) const {
    const Size expected = coarse(tile);
    if (logits == expected) return;
    throw EngineError("the network answers " + to_text(logits) + " logits for a tile of " + to_text(tile) +
                      "; expected " + to_text(expected) + " at stride " + std::to_string(stride) +
                      ". The manifest's output stride is wrong: pack the model again.");
}

TilePlan plan_tiles(const Geometry& geometry, const SizePolicy& policy, int stride) {
    const std::int64_t wide_multiple = std::lcm<std::int64_t, std::int64_t>(policy.multiple, stride);
    const auto largest = [&](int length) {
        return (length - policy.offset) / wide_multiple * wide_multiple + policy.offset;
    };
    const std::int64_t height = largest(policy.max.height);
    const std::int64_t width = largest(policy.max.width);
    if (height < policy.min.height || width < policy.min.width) {
        throw ShapeError(
            "an image of " + to_text(geometry.image) + " is larger than the network's " + to_text(policy.max) +
                ", and cannot be tiled: tiles must be multiples of " + std::to_string(wide_multiple) +
                (policy.offset != 0 ? " plus 1" : "") +
                ". Resize the image, or export with a dynamic size or with resize='stretch' or 'letterbox'.",
            "at most " + to_text(policy.max), to_text(geometry.image));
    }
    const Size needed = fit_size(geometry.input, wide_multiple, policy.offset);
    const auto multiple = static_cast<int>(wide_multiple);  // no more than a side of the largest tile
    Axis down = plan_axis(needed.height, static_cast<int>(height), multiple);
    Axis across = plan_axis(needed.width, static_cast<int>(width), multiple);
    return {{down.tile, across.tile},
            std::move(down.origins),
            std::move(across.origins),
            {down.covered, across.covered},
            stride,
            policy.offset};
}

Logits blend_tiles(const TilePlan& plan, const std::function<Logits(int top, int left)>& infer,
                   std::vector<float>& blended) {
    const Size whole = plan.coarse(plan.full);
    const Size cells = plan.coarse(plan.tile);
    const auto plane = static_cast<std::size_t>(whole.area());
    int channels = 0;
    for_each_tile(plan, [&](int top, int left, const float* rows, const float* columns, std::size_t corner) {
        const Logits tile = infer(top, left);
        plan.check_logits(tile.size);
        if (channels != 0 && tile.channels != channels) {
            throw EngineError("the network answers " + std::to_string(tile.channels) + " classes for one tile and " +
                              std::to_string(channels) + " for another");
        }
        if (channels == 0) {
            channels = tile.channels;
            blended.assign(plane * channels, 0.0f);
        }
        const float* source = tile.values;
        for (int c = 0; c < channels; ++c) {
            for (int y = 0; y < cells.height; ++y, source += cells.width) {
                float* target = blended.data() + c * plane + corner + static_cast<std::size_t>(y) * whole.width;
                for (int x = 0; x < cells.width; ++x) target[x] += source[x] * std::min(rows[y], columns[x]);
            }
        }
    });
    const std::vector<float> sums = plan.sum_weights();
    for (int c = 0; c < channels; ++c) {
        for (std::size_t i = 0; i < plane; ++i) blended[c * plane + i] /= sums[i];
    }
    return {blended.data(), channels, whole};
}

}  // namespace atrous
