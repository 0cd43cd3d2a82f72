// What a GPU does around the network for images of one size: all memory and every launch, as data.
#pragma once

#include <cstdint>
#include <optional>

#include "image.hpp"
#include "native/launch.hpp"
#include "tiling.hpp"

namespace atrous {

/// What the memory and the launches of a frame depend on.
struct FrameSpec {
    int images, classes;
    std::optional<double> threshold;  ///< of one channel under a sigmoid and two classes; none: a softmax over classes
    Geometry geometry;
    std::optional<TilePlan> tiles;  ///< none: the network takes the image whole
    PixelScaling pixels;
    bool has_half_input;  ///< the network's input is in half precision; otherwise single
    Size output;          ///< of the network's logits
    bool has_half_output;
    bool align_corners;
    std::optional<BandColors> colors;  ///< of bands, for a CRF; none: it compares the images

    /// Of a label.
    int label_bytes() const { return classes > 256 ? 2 : 1; }
    /// Of the network's logits.
    int channels() const { return threshold ? 1 : classes; }
    /// Of the network's input: of the image or of a tile.
    Size input() const { return tiles ? tiles->tile : geometry.input; }
    /// Of the input that all logits belong to.
    Geometry whole() const { return tiles ? Geometry{geometry.image, tiles->full, geometry.resize} : geometry; }
    /// Of all logits.
    Size coarse() const { return tiles ? tiles->coarse(tiles->full) : output; }
};

/// The work of a frame. Given are "pictures", RGB [images, height, width, 3] or bands, and where results go:
///   "swap"           exchanges R and B of the images; not of bands
///   "colors"         → "colors" [images, height, width, 3], what the CRF compares, where the spec has them
///   "preprocess"     → "input", what the network takes; nothing where there are tiles
///   "inference"      → "output", or of all tiles "blended", logits [images, channels, height, width] of `coarse()`
///   "check"          → "first_bad", the index of the first logit that is NaN or infinite, or 2³² − 1
///   "labels"         → "labels" [images, height, width]
///   "probabilities"  → "probabilities" [images, classes, height, width], their softmax or sigmoid
///   "threshold"      given "probabilities" → "labels", where there is a threshold
///
/// Throws ShapeError where the kernels' indices do not reach, EngineError where a tile's logits do not lie as the
/// manifest says.
LaunchPlan plan_frame(const FrameSpec& spec, int multiprocessors);

/// "overlay" of given "images" and "labels" in the colours of the given "palette" [256, 3] → "overlay".
LaunchPlan plan_overlay(std::int64_t pixels, float alpha, int multiprocessors);

}  // namespace atrous
