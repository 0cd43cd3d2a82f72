// Which sizes a picture goes through: as runtime/preprocess.py and runtime/tiling.py have it, number for number.
#pragma once

#include <functional>
#include <vector>

#include "manifest.hpp"

namespace atrous::core {

/// Where the logits of one picture lie.
struct Geometry {
    Size image;  ///< of the picture, and of the labels
    Size input;  ///< of the network's input; may exceed the maximum, and is tiled then
    Size full;   ///< what the logits cover, in pixels; larger than `image` where the input was padded
};

Geometry plan_geometry(const Size& image, const InputSpec& inputs);

bool needs_tiles(const Geometry& geometry, const InputSpec& inputs);

/// Tiles of one picture, all of one size, covering `full`.
struct TilePlan {
    Size tile;
    std::vector<int> tops, lefts;  ///< pixels
    Size full;
    int stride;  ///< pixels from one coarse cell to the next
    int offset;  ///< cells beyond size / stride, 0 or 1

    Size coarse(const Size& pixels) const;
};

/// Throws Failure(SHAPE) where the network's fixed size does not consist of whole coarse cells.
TilePlan plan_tiles(const Geometry& geometry, const InputSpec& inputs, const OutputSpec& outputs);

/// Coarse logits [channels, height, width] somewhere in memory.
struct Logits {
    const float* values = nullptr;
    int channels = 0;
    Size size;

    std::size_t count() const {
        return static_cast<std::size_t>(channels) * static_cast<std::size_t>(size.height) *
               static_cast<std::size_t>(size.width);
    }
};

/// Runs `infer(top, left)` for every tile and blends their logits into one map, in `blended`.
/// Throws Failure(ENGINE) where the logits of a tile are not at the manifest's stride.
Logits blend_tiles(const TilePlan& plan, const std::function<Logits(int top, int left)>& infer,
                   std::vector<float>& blended);

}  // namespace atrous::core
