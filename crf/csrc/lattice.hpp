// The permutohedral lattice of one set of features: which vertices exist, which pixels touch them, who neighbours whom.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "features.hpp"
#include "filter_kernels.hpp"

namespace atrous {

/// Gaussian filtering in d dimensions by splat, blur and slice (Adams, Baek & Davis 2010).
///
/// Vertices are numbered as CellGrid orders them, so that the blur reads memory in streams.
class Lattice {
  public:
    /// Builds the lattice, reusing the memory of an earlier build.
    /// Throws CrfError when a coordinate is not finite or too large, or when indices would not fit 32 bits.
    void build(const FeatureSource& source, int threads);

    std::int64_t pixels() const { return pixels_; }
    int corners() const { return corners_; }  ///< vertices of a simplex: d + 1
    std::int64_t vertices() const { return vertices_; }
    std::size_t bytes() const;

    /// Multiplies the weights by `before[pixel]` where values enter and `after[pixel]` where they leave.
    void scale_weights(const float* before, const float* after, int threads);

    /// Floats that splat_and_blur() needs for its result and for its scratch memory, each.
    std::size_t values_size(const ChannelLayout& layout) const { return (vertices_ + 1) * layout.padded(); }

    /// values[vertex] = blurred sum of rows[pixel].
    void splat_and_blur(const float* rows, const ChannelLayout& layout, float* values, float* scratch,
                        int threads) const;

    /// out[i] += scale ∘ filtered value of pixel begin + i, for pixels in [begin, end).
    void slice(const float* values, const ChannelLayout& layout, const float* scale, std::int64_t begin,
               std::int64_t end, float* out) const {
        filter_kernels().slice(pixel_vertices_.data(), pixel_weights_.data(), corners_, layout, values, scale, begin,
                               end, out);
    }

  private:
    /// Entries of consecutive vertices, for one scheduled piece of work.
    struct SplatPiece {
        std::int64_t begin, end, vertex;
    };
    template <int words>
    friend class LatticeBuilder;

    std::int64_t pixels_ = 0;
    std::int64_t vertices_ = 0;
    int corners_ = 0;
    Buffer<std::int32_t> pixel_vertices_;  ///< [pixels, corners], and then the ghost's (lattice_builder.cpp)
    Buffer<float> pixel_weights_;          ///< [pixels, corners]
    Buffer<SplatEntry> entries_;           ///< by vertex, then by pixel, in kernel coding
    std::vector<SplatPiece> splat_pieces_;
    std::vector<Buffer<Neighbours>> neighbours_;  ///< [axis][vertex]
};

}  // namespace atrous
