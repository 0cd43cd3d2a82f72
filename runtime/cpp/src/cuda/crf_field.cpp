#include "cuda/crf_field.hpp"

#include <algorithm>
#include <vector>

#include "failure.hpp"

namespace atrous::core::cuda {
namespace {

constexpr float kProbabilityFloor = 1e-5f;  ///< −log of this is the largest unary energy, as on the CPU
constexpr int kGaussianCorners = 3;
constexpr int kBilateralCorners = 6;
/// Small pictures have many vertices a pixel and need little memory.
constexpr std::int64_t kLeastCapacity = 4096;
/// Kernels index pairs of a pixel and a vertex with 32 bits, and step beyond the last.
constexpr std::int64_t kMaxEntries = std::int64_t{1} << 30;
constexpr int kWarp = 32;
constexpr int kPlaneTile = 32;
constexpr int kPlaneRows = 8;
constexpr std::uint32_t kNone = 0xFFFFFFFF;

/// Mirrors `Term` in crf/kernels/mean_field.cuh.
struct Term {
    Address values, pixel_vertices, weights, scale, matrix;
    std::int64_t corners;
};

std::size_t to_size(std::int64_t bytes) {
    return static_cast<std::size_t>(bytes);
}

/// 1 where the pixels do not fill whole groups of four, as kernels/embed.cuh explains.
std::int64_t ghosts_of(std::int64_t pixels) {
    return pixels % 4 != 0 ? 1 : 0;
}

}  // namespace

std::int64_t FieldSpec::most_vertices() const {
    return kBilateralCorners * (pixels() + ghosts_of(pixels()));
}

std::int64_t FieldSpec::bilateral_capacity() const {
    return std::min(std::max(vertices_per_pixel * pixels(), kLeastCapacity), most_vertices());
}

std::optional<LatticeSize> FieldSpec::gaussian() const {
    if (iterations == 0 || params.gaussian_weight == 0) return std::nullopt;
    // It is built once, and its vertices are not known before.
    const std::int64_t ghosts = ghosts_of(pixels());
    return LatticeSize{pixels(), ghosts, kGaussianCorners, kGaussianCorners * (pixels() + ghosts)};
}

std::optional<LatticeSize> FieldSpec::bilateral() const {
    if (iterations == 0 || params.bilateral_weight == 0) return std::nullopt;
    return LatticeSize{pixels(), ghosts_of(pixels()), kBilateralCorners, bilateral_capacity()};
}

Storage FieldSpec::storage() const {
    return {"f32", 4, static_cast<int>(ceil_div(classes, 4))};  // rows are whole 16-byte vectors
}

std::int64_t FieldSpec::estimate_bytes() const {
    std::int64_t bytes = pixels() * (4 * classes + 8 * storage().stride());
    std::int64_t scratch = 0;
    std::int64_t slices = 0;
    for (const auto& size : {gaussian(), bilateral()}) {
        if (!size) continue;
        bytes += size->kept_bytes();
        scratch = std::max(scratch, LatticeScratch::bytes(*size));
        slices = std::max(slices, size->slices());
    }
    return bytes + scratch + 4 * storage().stride() * slices + 2 * value_bytes(bilateral_capacity()) +
           value_bytes(pixels());
}

Field::Field(KernelQueue& queue, const FieldSpec& spec) : queue_(queue), spec_(spec) {
    check_memory();
    const auto& device = queue.device();
    const auto memory = [&](std::int64_t bytes) { return Memory(device, to_size(std::max<std::int64_t>(bytes, 4))); };
    const int stride = spec_.storage().stride();
    planes_ = memory(4 * spec_.classes * spec_.pixels());
    logits_ = memory(4 * stride * spec_.pixels());
    marginals_ = memory(4 * stride * spec_.pixels());
    report_ = memory(sizeof(FieldReport));
    status_ = report_.region().part(0, 8);
    queue_.stream().fill(report_.region(), 0);

    const auto gaussian = spec_.gaussian();
    const auto bilateral = spec_.bilateral();
    std::int64_t slices = 0;
    if (bilateral) {  // the larger of the two, with at least as many points, corners and vertices
        scratch_ = LatticeScratch::make(device, *bilateral);
        bilateral_.emplace(device, *bilateral, status_, report_.region().part(12, 4));
        bilateral_values_ = memory(spec_.value_bytes(bilateral->capacity));
        slices = bilateral->slices();
    }
    if (gaussian) {
        gaussian_.emplace(device, *gaussian, status_, report_.region().part(8, 4));
        // Needed once; its vertices may outnumber those that the bilateral lattice has room for.
        build_gaussian(LatticeScratch::make(device, *gaussian));
        const std::uint32_t vertices = std::max(1U, read_report().gaussian_vertices);
        gaussian_values_ = memory(spec_.value_bytes(vertices));
        slices = std::max(slices, gaussian->slices());
    }
    other_values_ =
        memory(static_cast<std::int64_t>(std::max(gaussian_values_.region().bytes, bilateral_values_.region().bytes)));
    tails_ = memory(4 * stride * slices);
    upload_terms();
}

void Field::check_memory() const {
    const std::int64_t estimate = spec_.estimate_bytes();
    constexpr double kGiB = 1 << 30;
    const std::string what = text("a dense CRF of ", spec_.classes, " classes on ", spec_.height, "x", spec_.width,
                                  " pixels needs about ", static_cast<double>(estimate) / kGiB, " GiB");
    if (spec_.most_vertices() >= kMaxEntries || spec_.pixels() * spec_.classes >= std::int64_t{1} << 32) {
        fail(ATROUS_ERROR_CRF, what, ", and its indices exceed 32 bits. Refine a smaller picture or tiles");
    }
    const std::size_t free = queue_.device()->free_bytes();
    if (to_size(estimate) > free) {
        fail(ATROUS_ERROR_MEMORY, what, " of GPU memory, and ", static_cast<double>(free) / kGiB, " GiB are free on ",
             queue_.device()->name(), ". Use smaller pictures, or fewer calls at once");
    }
}

void Field::build_gaussian(const LatticeScratch& scratch) {
    const auto sigma_px = static_cast<float>(spec_.params.gaussian_sigma_xy_px);
    gaussian_->queue_gaussian(queue_, scratch, spec_.height, spec_.width, sigma_px);
    if (read_report().failures != 0) {
        fail(ATROUS_ERROR_CRF, "the Gaussian's sigma of ", sigma_px, " px is too small for ", spec_.height, "x",
             spec_.width, " pixels: lattice coordinates exceed 20 bits. Use a larger sigma");
    }
}

FieldReport Field::read_report() const {
    FieldReport report{};
    queue_.stream().download(&report, report_.region(), sizeof report);
    queue_.stream().synchronize();
    return report;
}

void Field::upload_terms() {
    const int stride = spec_.storage().stride();
    std::vector<Term> rows;
    const auto add = [&](const std::optional<Lattice>& lattice, double weight, const Memory& values, Memory& scale) {
        if (!lattice) return;
        // What is added to −U per unit of filter response: Potts.
        std::vector<float> scales(static_cast<std::size_t>(stride), 1.0f);
        std::fill_n(scales.begin(), spec_.classes, static_cast<float>(weight));
        scale = Memory(queue_.device(), scales.size() * sizeof(float));
        queue_.stream().upload(scale.region(), scales.data(), scales.size() * sizeof(float));
        rows.push_back({values.region().address, lattice->pixel_vertices().address, lattice->weights().address,
                        scale.region().address, 0, lattice->size().corners});
    };
    add(gaussian_, spec_.params.gaussian_weight, gaussian_values_, gaussian_scale_);
    add(bilateral_, spec_.params.bilateral_weight, bilateral_values_, bilateral_scale_);
    term_count_ = static_cast<int>(rows.size());
    terms_ = Memory(queue_.device(), std::max<std::size_t>(1, rows.size()) * sizeof(Term));
    if (!rows.empty()) queue_.stream().upload(terms_.region(), rows.data(), rows.size() * sizeof(Term));
    queue_.stream().synchronize();  // before what was copied goes
}

std::int64_t Field::plane_blocks() const {
    return ceil_div(spec_.pixels(), kPlaneTile);
}

void Field::queue_frame(const Region& rgb) {
    const Storage storage = spec_.storage();
    queue_.stream().fill(report_.region().part(0, 4), 0);
    queue_.stream().fill(report_.region().part(4, 4), kNone);
    queue_.tiles("crf_read_probabilities", plane_blocks(), kPlaneTile, kPlaneRows, planes_.region(), 1, spec_.classes,
                 static_cast<std::int32_t>(spec_.pixels()), storage.stride(), kProbabilityFloor, logits_.region(),
                 status_);
    if (bilateral_) {
        bilateral_->queue_bilateral(queue_, *scratch_, rgb, spec_.height, spec_.width,
                                    static_cast<float>(spec_.params.bilateral_sigma_xy_px),
                                    static_cast<float>(spec_.params.bilateral_sigma_rgb));
    }
    queue_step(0, spec_.iterations == 0);  // without terms: softmax(−U)
    for (int iteration = 0; iteration < spec_.iterations; ++iteration) {
        if (gaussian_) {
            gaussian_->queue_filter(queue_, storage, marginals_.region(), gaussian_values_.region(),
                                    other_values_.region(), tails_.region());
        }
        if (bilateral_) {
            bilateral_->queue_filter(queue_, storage, marginals_.region(), bilateral_values_.region(),
                                     other_values_.region(), tails_.region());
        }
        queue_step(term_count_, iteration == spec_.iterations - 1);
    }
}

void Field::queue_step(int terms, bool is_last) {
    const Storage storage = spec_.storage();
    const bool is_wide = storage.lanes > kWarp;  // more lanes than a warp has: two vectors a lane
    int lanes = 1;                               // a power of two, so that lanes exchange by halving distances
    while (lanes < ceil_div(storage.lanes, is_wide ? 2 : 1)) lanes *= 2;
    const std::string kernel = text("crf_", is_last ? "last_" : "", "step_", storage.suffix, is_wide ? "_wide" : "");
    // The last one writes over the unaries.
    queue_.rows(kernel.c_str(), spec_.pixels(), lanes, terms_.region(), terms, logits_.region(),
                static_cast<std::int32_t>(spec_.pixels()), spec_.classes, storage.stride(),
                is_last ? logits_.region() : marginals_.region(), status_);
}

void Field::queue_labels(const Region& target) {
    queue_.each("crf_write_labels", spec_.pixels(), logits_.region(), static_cast<std::int32_t>(spec_.pixels()),
                spec_.classes, spec_.storage().stride(), target, status_);
}

void Field::queue_marginals(const Region& target) {
    queue_.tiles("crf_write_marginals", plane_blocks(), kPlaneTile, kPlaneRows, logits_.region(), 1, spec_.classes,
                 static_cast<std::int32_t>(spec_.pixels()), spec_.storage().stride(), target, status_);
}

}  // namespace atrous::core::cuda
