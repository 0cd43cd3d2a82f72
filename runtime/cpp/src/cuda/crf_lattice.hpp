// The permutohedral lattice on the GPU: the launch sequence of crf/cuda_lattice.py, for one picture in single
// precision.
#pragma once

#include <cstdint>

#include "cuda/kernel_queue.hpp"

namespace atrous::core::cuda {

/// How rows of channels are kept: `width` channels a thread, `lanes` threads a row.
struct Storage {
    const char* suffix;
    int width, lanes;
    int stride() const { return width * lanes; }
};

/// What the memory of a lattice depends on.
struct LatticeSize {
    std::int64_t pixels;
    std::int64_t ghosts;  ///< points without a value that have vertices nevertheless (Batch in kernels/embed.cuh)
    int corners;          ///< vertices of a simplex, 3 or 6
    std::int64_t capacity;

    std::int64_t entries() const { return (pixels + ghosts) * corners; }
    std::int64_t slices() const;
    /// The table is at most half full, so that runs of occupied slots stay short.
    int table_bits() const;
    /// Memory that a lattice keeps.
    std::int64_t kept_bytes() const;
};

/// What building takes, which lattices up to the size that it was made for may share.
struct LatticeScratch {
    Memory keys, first, vertex_of_slot, slots, flags, pairs, more_pairs, vertex_keys, counts, tile_sums, total, norms,
        ones, values, more_values, tails;

    static std::int64_t bytes(const LatticeSize& size);
    static LatticeScratch make(const std::shared_ptr<const Device>& device, const LatticeSize& largest);
};

/// K̂ = diag(1/√s) · K · diag(1/√s), with the norms in the weights.
class Lattice {
  public:
    Lattice(const std::shared_ptr<const Device>& device, const LatticeSize& size, const Region& status,
            const Region& vertices);

    const LatticeSize& size() const { return size_; }
    Region pixel_vertices() const { return pixel_vertices_.region(); }
    Region weights() const { return weights_.region(); }

    /// Positions divided by `sigma_xy_px`.
    void queue_gaussian(KernelQueue& queue, const LatticeScratch& scratch, int height, int width, float sigma_xy_px);
    /// Positions and colours [height, width, 3].
    void queue_bilateral(KernelQueue& queue, const LatticeScratch& scratch, const Region& rgb, int height, int width,
                         float sigma_xy_px, float sigma_rgb);
    /// Splats `rows` [pixels, stride] and blurs them along each axis; the result is in `values` [vertices, stride].
    /// `other` is as large, `tails` [slices, stride]; both are overwritten.
    void queue_filter(KernelQueue& queue, const Storage& storage, const Region& rows, const Region& values,
                      const Region& other, const Region& tails) const;

  private:
    void queue_empty_table(KernelQueue& queue, const LatticeScratch& scratch) const;
    void queue_build(KernelQueue& queue, const LatticeScratch& scratch) const;
    void queue_norms(KernelQueue& queue, const LatticeScratch& scratch) const;

    LatticeSize size_;
    Region status_, vertices_;
    Memory weights_, pixel_vertices_, splat_entries_, first_entry_, slice_vertex_, neighbours_;
};

}  // namespace atrous::core::cuda
