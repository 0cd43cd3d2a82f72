// The permutohedral lattice of one set of features: which vertices exist, which pixels touch them, who neighbours whom.
#pragma once

#include <cstdint>
#include <vector>

#include "features.hpp"
#include "filter_kernels.hpp"
#include "native/buffer.hpp"

namespace atrous {

/// The order in which the blur goes along the axes. Blurs along two axes do not commute, since points are missing; the
/// reverse order is that of the transposed filter.
enum class AxisOrder { forward, reverse };

/// Gaussian filtering in d dimensions by splat, blur and slice (Adams, Baek & Davis 2010).
///
/// Rows of floats hold sums, as in the paper. Rows of fractions, for which share_masses() readies the lattice, hold
/// sums divided by the vertex's mass, which is its sum for an image of ones: means of what lies in [0, 1]. Masses
/// change with each pass but not with the values, so the splat's weights are divided by the first, slicing multiplies
/// by the last, and the blur takes the mean of three vertices by their shares of the new mass.
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

    /// From now until the next build, rows are fractions.
    void share_masses(int threads);
    bool has_shares() const { return !shares_.empty(); }

    /// Values that splat_and_blur() needs for its result and for its scratch memory, each.
    std::size_t values_size(const ChannelLayout& layout) const { return (vertices_ + 1) * layout.padded(); }

    /// values[vertex] = blurred sum of rows[pixel]. Shares of masses, and so fractions, are for the forward order.
    template <typename T>
    void splat_and_blur(const T* rows, const ChannelLayout& layout, T* values, T* scratch, int threads,
                        AxisOrder order = AxisOrder::forward) const;

    /// out[i] += scale ∘ filtered value of pixel begin + i, for pixels in [begin, end).
    template <typename T>
    void slice(const T* values, const ChannelLayout& layout, const float* scale, std::int64_t begin, std::int64_t end,
               float* out) const {
        const Corners corners{pixel_vertices_.data(), pixel_weights_.data(), corners_};
        filter_kernels().rows<T>().slice(corners, layout, values, scale, begin, end, out);
    }

  private:
    /// Entries of consecutive vertices, for one scheduled piece of work.
    struct SplatPiece {
        std::int64_t begin, end, vertex;
    };
    template <int words>
    friend class LatticeBuilder;

    void take_masses(float* masses, int threads);

    std::int64_t pixels_ = 0;
    std::int64_t vertices_ = 0;
    int corners_ = 0;
    Buffer<std::int32_t> pixel_vertices_;  ///< [pixels, corners], and then the ghost's (lattice_builder.cpp)
    Buffer<float> pixel_weights_;          ///< [pixels, corners]
    Buffer<SplatEntry> entries_;           ///< by vertex, then by pixel, in kernel coding
    std::vector<SplatPiece> splat_pieces_;
    std::vector<Buffer<Neighbours>> neighbours_;  ///< [axis][vertex]
    std::vector<Buffer<Shares>> shares_;          ///< [axis][vertex]; empty where rows are floats
};

extern template void Lattice::splat_and_blur(const float*, const ChannelLayout&, float*, float*, int, AxisOrder) const;
extern template void Lattice::splat_and_blur(const Fraction*, const ChannelLayout&, Fraction*, Fraction*, int,
                                             AxisOrder) const;

}  // namespace atrous
