// Mean-field inference in a dense CRF on the GPU: all memory and every launch for images of one size, as data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lattice_plan.hpp"

namespace atrous {

/// Weights and standard deviations of the two kernels, and what divides the unaries, as in crf/params.py.
struct CrfParams {
    double bilateral_weight = 4, bilateral_sigma_xy_px = 67, bilateral_sigma_rgb = 3;
    double gaussian_weight = 3, gaussian_sigma_xy_px = 1;
    double unary_temperature = 1;
    std::optional<ClassInteraction> interaction = {};  ///< none: Potts
};

/// What the memory and the launches of a field depend on.
struct FieldSpec {
    int classes, height, width, iterations;
    CrfParams params;
    bool has_fractions = false;  ///< rows on the lattices, and Q between updates, are 16-bit fractions of 1
    Normalization normalization = Normalization::symmetric;
    int images = 1;
    int vertices_per_pixel = 3;  ///< room for bilateral vertices; photos have up to 2.4 a pixel, noise up to 6

    ImageBatch batch() const { return {images, height, width}; }
    RowStorage storage() const;
    /// The lattices that the weights ask for.
    std::optional<LatticeSpec> gaussian() const;
    std::optional<LatticeSpec> bilateral() const;
    /// With twice the room for bilateral vertices; none if there is room for all that the pixels can have.
    std::optional<FieldSpec> grown() const;
    /// Memory of a field, with as many Gaussian vertices as pixels.
    std::int64_t estimate_bytes() const;
    /// "a dense CRF of 21 classes on 1×513×513 pixels"
    std::string describe() const;
};

/// μ of each kernel, without its weight.
struct KernelCompatibilities {
    Compatibility gaussian, bilateral;
};

/// The work of a field, Q ← softmax(−U − Σ_k μ_k(K̂_k Q)), in two plans.
///
/// The Gaussian lattice depends on the size alone. It is built once, and how many vertices it has, which is not known
/// before, decides how much memory its values take. So without `gaussian_vertices` the plan is "build", whose report
/// tells them, and with them all the rest, to which the first plan's buffers go over:
///   "frame"      "planes", probabilities [images, classes, height, width], and "rgb" → marginals, for the next two
///   "labels"     → "labels" [images, height, width]
///   "marginals"  → "marginals" of the shape of "planes"
///   "report"     → "report_copy", a `FieldReport`
///
/// Throws CrfError where the kernels' indices do not reach.
LaunchPlan plan_field(const FieldSpec& spec, const KernelCompatibilities& compatibilities, int multiprocessors,
                      std::optional<std::int64_t> gaussian_vertices);

/// Throws CrfError if a lattice coordinate of a frame, or of "build", went beyond its key: a sigma is too small.
void check_sigmas(const FieldSpec& spec, std::uint32_t failures, bool is_build);

}  // namespace atrous
