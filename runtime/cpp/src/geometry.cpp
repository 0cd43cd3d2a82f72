#include "geometry.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "failure.hpp"

namespace atrous::core {
namespace {

/// Share of a tile that it has in common with the next one.
constexpr double kOverlap = 0.25;
/// Share of the overlap, next to a tile's inner edge, that is left to the other tile: the network saw zeros beyond.
constexpr float kMargin = 0.25f;
/// Weight of the margin, for cells that no other tile covers.
constexpr float kLeastWeight = 1e-6f;

/// The smallest k · multiple + offset that is at least `length`.
std::int64_t fit_length(std::int64_t length, std::int64_t multiple, int offset) {
    return (length - offset + multiple - 1) / multiple * multiple + offset;
}

/// A size in pixels as a size, or Failure(SHAPE): a manifest may ask for multiples that lead beyond all pictures.
int checked_length(std::int64_t length) {
    constexpr std::int64_t kMost = std::int64_t{1} << 24;
    if (length > kMost) fail(ATROUS_ERROR_SHAPE, "the manifest's size policy asks for an input of ", length, " pixels");
    return static_cast<int>(length);
}

Size fit_size(const Size& size, std::int64_t multiple, int offset) {
    return {checked_length(fit_length(size.height, multiple, offset)),
            checked_length(fit_length(size.width, multiple, offset))};
}

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
std::vector<float> ramp(int length, bool has_before, bool has_after) {
    const auto overlap = static_cast<float>(std::max(1, static_cast<int>(length * kOverlap)));
    std::vector<float> weights(length, 1.0f);
    for (int i = 0; i < length; ++i) {
        const float depth = (static_cast<float>(i) + 0.5f) / overlap;
        const float rising = std::min(std::max((depth - kMargin) / (1 - 2 * kMargin), kLeastWeight), 1.0f);
        if (has_before) weights[i] = std::min(weights[i], rising);
        if (has_after) weights[length - 1 - i] = std::min(weights[length - 1 - i], rising);
    }
    return weights;
}

}  // namespace

Geometry plan_geometry(const Size& image, const InputSpec& inputs) {
    if (inputs.stretches) return {image, inputs.size.opt, image};
    const SizePolicy& policy = inputs.size;
    const Size least{std::max(image.height, policy.min.height), std::max(image.width, policy.min.width)};
    const Size fitted = fit_size(least, policy.multiple, policy.offset);
    return {image, fitted, fitted};
}

bool needs_tiles(const Geometry& geometry, const InputSpec& inputs) {
    return geometry.input.height > inputs.size.max.height || geometry.input.width > inputs.size.max.width;
}

Size TilePlan::coarse(const Size& pixels) const {
    return {(pixels.height - offset) / stride + offset, (pixels.width - offset) / stride + offset};
}

TilePlan plan_tiles(const Geometry& geometry, const InputSpec& inputs, const OutputSpec& outputs) {
    const SizePolicy& policy = inputs.size;
    const std::int64_t wide_multiple = std::lcm<std::int64_t, std::int64_t>(policy.multiple, outputs.stride);
    const auto largest = [&](int length) {
        return (length - policy.offset) / wide_multiple * wide_multiple + policy.offset;
    };
    const std::int64_t height = largest(policy.max.height);
    const std::int64_t width = largest(policy.max.width);
    if (height < policy.min.height || width < policy.min.width) {
        fail(ATROUS_ERROR_SHAPE, "a picture of ", to_text(geometry.image), " is larger than the network's ",
             to_text(policy.max), ", and cannot be tiled: tiles must be multiples of ", wide_multiple,
             policy.offset != 0 ? " plus 1" : "",
             ". Resize the picture, or export with a dynamic size or with resize='stretch'.");
    }
    const Size needed = fit_size(geometry.input, wide_multiple, policy.offset);
    const auto multiple = static_cast<int>(wide_multiple);  // no more than a side of the largest tile
    Axis down = plan_axis(needed.height, static_cast<int>(height), multiple);
    Axis across = plan_axis(needed.width, static_cast<int>(width), multiple);
    return {{down.tile, across.tile},       std::move(down.origins), std::move(across.origins),
            {down.covered, across.covered}, outputs.stride,          policy.offset};
}

Logits blend_tiles(const TilePlan& plan, const std::function<Logits(int top, int left)>& infer,
                   std::vector<float>& blended) {
    const Size whole = plan.coarse(plan.full);
    const Size expected = plan.coarse(plan.tile);
    const auto plane = static_cast<std::size_t>(whole.height) * whole.width;
    std::vector<float> weights(plane, 0.0f);
    int channels = 0;
    for (const int top : plan.tops) {
        for (const int left : plan.lefts) {
            const Logits tile = infer(top, left);
            if (tile.size != expected || (channels != 0 && tile.channels != channels)) {
                fail(ATROUS_ERROR_ENGINE, "the network answers ", to_text(tile.size), " logits for a tile of ",
                     to_text(plan.tile), "; expected ", to_text(expected), " at stride ", plan.stride,
                     ". The manifest's output stride is wrong: pack the model again.");
            }
            if (channels == 0) {
                channels = tile.channels;
                blended.assign(plane * channels, 0.0f);
            }
            const auto rows = ramp(expected.height, top > 0, top + plan.tile.height < plan.full.height);
            const auto columns = ramp(expected.width, left > 0, left + plan.tile.width < plan.full.width);
            const std::size_t corner = static_cast<std::size_t>(top / plan.stride) * whole.width + left / plan.stride;
            for (int y = 0; y < expected.height; ++y) {
                for (int x = 0; x < expected.width; ++x) {
                    const float weight = std::min(rows[y], columns[x]);
                    const std::size_t at = corner + static_cast<std::size_t>(y) * whole.width + x;
                    weights[at] += weight;
                    const float* cell = tile.values + static_cast<std::size_t>(y) * expected.width + x;
                    const auto tile_plane = static_cast<std::size_t>(expected.height) * expected.width;
                    for (int c = 0; c < channels; ++c) blended[c * plane + at] += cell[c * tile_plane] * weight;
                }
            }
        }
    }
    for (int c = 0; c < channels; ++c) {
        for (std::size_t i = 0; i < plane; ++i) blended[c * plane + i] /= weights[i];
    }
    return {blended.data(), channels, whole};
}

}  // namespace atrous::core
