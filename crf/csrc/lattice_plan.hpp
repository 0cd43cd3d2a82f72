// The permutohedral lattice on the GPU (Adams, Baek & Davis 2010): its memory, how it is built, and how it filters.
#pragma once

#include <cstdint>
#include <string>

#include "crf/kernels/constants.cuh"
#include "mean_field.hpp"
#include "native/launch.hpp"

namespace atrous {

/// Images of one size.
struct ImageBatch {
    int images, height, width;

    std::int64_t area() const { return std::int64_t{height} * width; }
    std::int64_t pixels() const { return images * area(); }
    /// Pixels, and ghosts: points without a value that have vertices nevertheless (`Batch` in kernels/embed.cuh).
    std::int64_t points() const { return pixels() + (area() % 4 != 0 ? images : 0); }
};

/// How rows of channels are kept.
struct RowStorage {
    std::string suffix;  ///< of the kernels for it; "u16" keeps fractions of a vertex's mass
    int channel_bytes;
    int width;  ///< channels that one thread works on
    int lanes;  ///< threads of a row

    int stride() const { return width * lanes; }
    std::int64_t row_bytes() const { return std::int64_t{channel_bytes} * stride(); }
};

/// What the memory and the launches of a lattice depend on.
struct LatticeSpec {
    ImageBatch batch;
    int corners;            ///< vertices of a simplex, one more than features: 3 or 6
    std::int64_t capacity;  ///< vertices that there is room for
    bool has_shares;        ///< of masses, for rows of fractions (kernels/filter.cuh)
    Normalization normalization;
    float sigma_xy_px;
    float sigma_rgb;  ///< for 6 corners

    std::string name() const { return corners == kGaussianCorners ? "gaussian" : "bilateral"; }
    std::int64_t entries() const { return batch.points() * corners; }
    /// Groups of entries that are splatted together.
    std::int64_t slices() const { return ceil_div(entries(), kSlice); }
    /// The table is at most half full, so that runs of occupied slots stay short.
    int table_bits() const;
};

/// Writes down how one lattice is built and how it filters. Its kernel is K̂ = diag(after) · K · diag(before), with the
/// norms in the weights.
class LatticeWriter {
  public:
    /// Declares the buffers "scratch.*", which lattices share, and those named after the lattice, which it keeps.
    LatticeWriter(const LatticeSpec& spec, PlanWriter& plan);

    const LatticeSpec& spec() const { return spec_; }
    /// A buffer that the lattice keeps.
    Slot own(const std::string& buffer) const { return plan_[spec_.name() + "." + buffer]; }

    /// From "rgb" [images, height, width, 3] where the lattice has colours; failures and the number of vertices go to
    /// "report".
    void build();
    /// Splats `rows` [pixels, stride] and blurs them along each axis in order; the result is in `values`
    /// [vertices, stride]. `other` is as large, `tails` [slices, stride] floats; both are overwritten.
    void filter(const RowStorage& storage, const Slot& rows, const Slot& values, const Slot& other, const Slot& tails);

  private:
    Slot scratch(const std::string& buffer) const { return plan_["scratch." + buffer]; }
    /// The part of a buffer [axes, capacity] of the lattice's that belongs to one axis.
    Slot of_axis(const std::string& buffer, int axis) const;
    void embed();
    void norms();
    void shares(const Slot& pairs);
    void splat(const RowStorage& storage, const Slot& rows, const Slot& values, const Slot& tails);

    LatticeSpec spec_;
    PlanWriter& plan_;
    Slot status_, vertices_;
};

/// One lattice by itself: "build".
LaunchPlan plan_lattice(const LatticeSpec& spec, int multiprocessors);
/// Scan and sort by themselves: "scan" of the given "values", and "sort" of the given "pairs", by upper halves below
/// `high`.
LaunchPlan plan_sorting(std::int64_t count, std::int64_t high, int multiprocessors);

}  // namespace atrous
