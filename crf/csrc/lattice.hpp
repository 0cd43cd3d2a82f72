// The permutohedral lattice of one set of features: which vertices exist, which pixels touch them, who neighbours whom.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "buffer.hpp"
#include "features.hpp"
#include "filter_kernels.hpp"

namespace atrous {

/// Gaussian filtering in d dimensions by splat, blur and slice (Adams, Baek & Davis 2010).
///
/// Vertices are numbered in the order in which a scan over the pixels first meets them, so that vertices of nearby
/// pixels lie near each other in memory.
class Lattice {
  public:
    Lattice();
    ~Lattice();
    Lattice(const Lattice&) = delete;
    Lattice& operator=(const Lattice&) = delete;

    /// Builds the lattice, reusing the memory of an earlier build.
    /// Throws CrfError when a coordinate is not finite or too large, or when indices would not fit 32 bits.
    void build(const FeatureSource& source, int threads);

    std::int64_t pixels() const { return pixels_; }
    int corners() const { return corners_; }  ///< vertices of a simplex: d + 1
    std::int64_t vertices() const { return vertices_; }
    std::size_t bytes() const;

    /// Multiplies the weights by `before[pixel]` where values enter and `after[pixel]` where they leave.
    void scale_weights(const float* before, const float* after, int threads);

    /// values[vertex] = blurred sum of rows[pixel]. `values` holds vertices() rows of `stride` floats.
    void splat_and_blur(const float* rows, int stride, float* values, int threads) const;

    /// out[i] += scale ∘ filtered value of pixel begin + i, for pixels in [begin, end).
    void slice(const float* values, int stride, const float* scale, std::int64_t begin, std::int64_t end,
               float* out) const {
        filter_kernels().slice(pixel_vertices_.data(), pixel_weights_.data(), corners_, values, stride, scale, begin,
                               end, out);
    }

  private:
    /// Vertices with a neighbour along one axis, chain after chain, in kernel order; the others need no blur.
    struct Axis {
        Buffer<std::int32_t> sequence;
        std::vector<std::int64_t> piece_begins;  ///< chain borders that cut the sequence into even pieces
    };
    template <int words>
    friend class LatticeBuilder;
    struct Workspace;

    std::int64_t pixels_ = 0;
    std::int64_t vertices_ = 0;
    int corners_ = 0;
    Buffer<std::int32_t> pixel_vertices_;  ///< [pixels, corners], and then the ghost's (lattice_builder.cpp)
    Buffer<float> pixel_weights_;          ///< [pixels, corners]
    Buffer<std::int32_t> first_entry_;     ///< [vertices + 1]
    Buffer<SplatEntry> entries_;           ///< [pixels · corners], by vertex, then by pixel
    std::vector<std::int64_t> splat_begins_;
    std::vector<Axis> axes_;
    std::unique_ptr<Workspace> workspace_;
};

}  // namespace atrous
