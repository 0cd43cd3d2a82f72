// Where a pixel lies in the permutohedral lattice (Adams, Baek & Davis 2010, §3.1): the enclosing simplex and the
// barycentric weights in it. Vectorised over pixels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "native/buffer.hpp"

namespace atrous {

constexpr int kEmbedTile = 128;  ///< pixels a call; a multiple of the widest vector

/// Working memory of one tile. Rows are features or lattice axes, columns are pixels.
class EmbedTile {
  public:
    template <typename T>
    using Rows = T (*)[kEmbedTile];

    explicit EmbedTile(int count)
        : floats_(std::size_t(2 * count + 1) * kEmbedTile),
          ints_(std::size_t(2 * count + 2) * kEmbedTile),
          scratch_(std::size_t(kScratchRows) * (count + 1) * kScratchLanes) {
        features = reinterpret_cast<Rows<float>>(floats_.data());
        weights = features + count;
        origin = reinterpret_cast<Rows<std::int32_t>>(ints_.data());
        axis_of_rank = origin + count + 1;
        scratch = scratch_.data();
    }
    EmbedTile(const EmbedTile&) = delete;
    EmbedTile& operator=(const EmbedTile&) = delete;

    Rows<float> features;             ///< [features], in, divided by their standard deviations
    Rows<float> weights;              ///< [features + 1], out: barycentric weight of remainder j
    Rows<std::int32_t> origin;        ///< [features + 1], out: nearest remainder-0 point
    Rows<std::int32_t> axis_of_rank;  ///< [features + 1], out: which axis has rank r in the simplex
    float* scratch;                   ///< of the kernels, where the number of features is not known to the compiler

    static constexpr int kScratchRows = 4;   ///< of each axis: the position, its nearest point, its rank; its scale
    static constexpr int kScratchLanes = 8;  ///< pixels at a time

  private:
    Buffer<float> floats_;
    Buffer<std::int32_t> ints_;
    Buffer<float> scratch_;
};

struct EmbedKernels {
    /// Fills the outputs of the first `count` columns. False when a coordinate is not finite or beyond ±limit.
    bool (*embed)(EmbedTile& tile, int features, int count, float limit);
};

const EmbedKernels& embed_kernels();

}  // namespace atrous
