// Mean field on the GPU: all memory and the launch sequence for pictures of one size, as crf/cuda_field.py with Potts
// compatibilities, symmetric norms and single precision.
#pragma once

#include <memory>
#include <optional>

#include "crf_params.hpp"
#include "cuda/crf_lattice.hpp"

namespace atrous::core::cuda {

/// Why a frame failed; mirrors `Failure` in crf/kernels/common.cuh.
enum FieldFailure : std::uint32_t { kKeyRange = 1, kTableFull = 2, kNotFinite = 4, kNotProbability = 8 };

/// What the kernels leave in memory; `failures` and `first_bad` are Status in crf/kernels/common.cuh.
struct FieldReport {
    std::uint32_t failures, first_bad, gaussian_vertices, bilateral_vertices;
};

struct FieldSpec {
    int classes, height, width, iterations;
    CrfParams params;
    int vertices_per_pixel = 3;  ///< room for bilateral vertices; photos have up to 2.4 a pixel, noise up to 6

    std::int64_t pixels() const { return std::int64_t{height} * width; }
    std::int64_t most_vertices() const;
    std::int64_t bilateral_capacity() const;
    std::optional<LatticeSize> gaussian() const;
    std::optional<LatticeSize> bilateral() const;
    Storage storage() const;
    std::int64_t value_bytes(std::int64_t vertices) const { return 4 * storage().stride() * vertices; }
    std::int64_t estimate_bytes() const;
};

/// Allocates when made and never again.
class Field {
  public:
    /// Throws Failure: CRF where a sigma is too small or there are too many pixels, DEVICE or MEMORY.
    Field(KernelQueue& queue, const FieldSpec& spec);

    const FieldSpec& spec() const { return spec_; }
    /// Where probabilities [classes, height, width] are to be written.
    Region probabilities() const { return planes_.region(); }
    Region report() const { return report_.region(); }

    /// Queues one inference on what is in `probabilities()` and the picture [height, width, 3].
    void queue_frame(const Region& rgb);
    /// Labels [height, width] of the inference before.
    void queue_labels(const Region& target);
    /// Marginals [classes, height, width] of the inference before.
    void queue_marginals(const Region& target);

  private:
    void check_memory() const;
    void build_gaussian(const LatticeScratch& scratch);
    void upload_terms();
    void queue_step(int terms, bool is_last);
    FieldReport read_report() const;
    std::int64_t plane_blocks() const;

    KernelQueue& queue_;
    FieldSpec spec_;
    Memory planes_, logits_, marginals_, tails_, report_, gaussian_values_, bilateral_values_, other_values_, terms_,
        gaussian_scale_, bilateral_scale_;
    Region status_;
    std::optional<LatticeScratch> scratch_;
    std::optional<Lattice> gaussian_, bilateral_;
    int term_count_ = 0;
};

}  // namespace atrous::core::cuda
