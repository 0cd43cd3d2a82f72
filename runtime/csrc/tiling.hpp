// Images larger than the network's maximum: overlapping tiles, blended in the coarse logits.
//
// Tiles start at multiples of the output stride, so their coarse cells coincide with those of the whole image. They are
// blended there, with weights that fall linearly towards inner tile edges and leave out the cells next to them: a
// network that looks less far than that gives the same answer as on the whole image. The one coarse map that results
// goes through the same upsampling and CRF as an untiled one. Activations never exceed one tile; what grows with the
// image is the coarse map, classes / stride² floats a pixel.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "geometry.hpp"

namespace atrous {

/// Tiles of one image, all of one size, covering `full`.
struct TilePlan {
    Size tile;
    std::vector<int> tops, lefts;  ///< pixels
    Size full;
    int stride;  ///< pixels from one coarse cell to the next
    int offset;  ///< cells beyond size / stride, 0 or 1: of the size policy

    Size coarse(const Size& pixels) const;

    /// What a cell of a tile counts is the smaller of the weights of its row and its column:
    /// [tops, rows of a tile] and [lefts, columns of a tile].
    std::vector<float> row_weights() const;
    std::vector<float> column_weights() const;
    /// The sum of what all tiles count, [rows, columns] of the whole map.
    std::vector<float> sum_weights() const;

    /// Throws EngineError unless a tile's logits are at the manifest's stride.
    void check_logits(const Size& logits) const;
};

/// Cuts an image whose input would exceed the maximum into tiles of at most that size.
/// Throws ShapeError where the network's fixed size does not consist of whole coarse cells.
TilePlan plan_tiles(const Geometry& geometry, const SizePolicy& policy, int stride);

/// Coarse logits [channels, height, width] somewhere in memory.
struct Logits {
    const float* values = nullptr;
    int channels = 0;
    Size size;

    std::size_t count() const { return static_cast<std::size_t>(channels) * static_cast<std::size_t>(size.area()); }
};

/// Runs `infer(top, left)` for every tile and blends their logits into one map, in `blended`.
/// Throws EngineError where the logits of a tile are not at the manifest's stride.
Logits blend_tiles(const TilePlan& plan, const std::function<Logits(int top, int left)>& infer,
                   std::vector<float>& blended);

}  // namespace atrous
