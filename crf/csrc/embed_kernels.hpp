// Where a pixel lies in the permutohedral lattice (Adams, Baek & Davis 2010, §3.1): the enclosing simplex and the
// barycentric weights in it. Vectorised over pixels.
#pragma once

#include <cstdint>

namespace atrous {

constexpr int kMaxFeatures = 32;
constexpr int kEmbedTile = 128;  ///< pixels a call; a multiple of the widest vector

/// Working memory of one tile. Rows are features or lattice axes, columns are pixels.
struct EmbedTile {
    float features[kMaxFeatures][kEmbedTile];                 ///< in, divided by their standard deviations
    std::int32_t origin[kMaxFeatures + 1][kEmbedTile];        ///< out: nearest remainder-0 point
    std::int32_t axis_of_rank[kMaxFeatures + 1][kEmbedTile];  ///< out: which axis has rank r in the simplex
    float weights[kMaxFeatures + 1][kEmbedTile];              ///< out: barycentric weight of remainder j
};

struct EmbedKernels {
    /// Fills the outputs of the first `count` columns. False when a coordinate is not finite or beyond ±limit.
    bool (*embed)(EmbedTile& tile, int features, int count, float limit);
};

const EmbedKernels& embed_kernels();

}  // namespace atrous
