#include "launch_plan.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "native/error.hpp"

namespace atrous {
namespace {

/// Small images have many vertices a pixel and need little memory.
constexpr std::int64_t kMinCapacity = 4096;
/// Kernels index pairs of a pixel and a vertex with 32 bits, and step beyond the last.
constexpr std::int64_t kMaxEntries = std::int64_t{1} << 30;
constexpr std::int64_t kMaxValues = std::int64_t{1} << 32;

template <typename... Values>
std::string format(const char* pattern, Values... values) {
    char text[400];
    std::snprintf(text, sizeof text, pattern, values...);
    return text;
}

/// One pairwise term.
struct PlannedTerm {
    LatticeWriter lattice;
    float weight;
};

/// Writes down a field.
class FieldWriter {
  public:
    FieldWriter(const FieldSpec& spec, int multiprocessors, std::int64_t gaussian_vertices);

    LaunchPlan build();
    LaunchPlan run(const KernelCompatibilities& compatibilities);

  private:
    void add_term(const std::optional<LatticeSpec>& lattice, double weight, std::int64_t vertices);
    void set_terms(const KernelCompatibilities& compatibilities);
    void frame();
    void update(std::size_t terms, bool is_last);
    void outputs();
    Slot status() const { return plan_["report"].part(0, sizeof(Status)); }
    std::int64_t plane_blocks() const { return spec_.images * ceil_div(spec_.batch().area(), kPlaneTile); }

    const FieldSpec& spec_;
    RowStorage storage_;
    PlanWriter plan_;
    std::vector<PlannedTerm> terms_;  ///< in the order in which they are added up
};

FieldWriter::FieldWriter(const FieldSpec& spec, int multiprocessors, std::int64_t gaussian_vertices)
    : spec_(spec), storage_(spec.storage()), plan_(multiprocessors) {
    const std::int64_t pixels = spec.batch().pixels();
    plan_.declare("report", sizeof(FieldReport), BufferUse::kept);
    plan_.declare("planes", 4 * spec.classes * pixels, BufferUse::kept);
    plan_.declare("logits", 4 * storage_.stride() * pixels, BufferUse::kept);
    plan_.declare("rows", storage_.row_bytes() * pixels, BufferUse::scratch);
    plan_.declare("rgb", ceil_div(3 * pixels, 4) * 4, BufferUse::given);
    plan_.declare("labels", ceil_div(pixels, 4) * 4, BufferUse::given);
    plan_.declare("marginals", 4 * spec.classes * pixels, BufferUse::given);
    plan_.declare("report_copy", sizeof(FieldReport), BufferUse::given);
    plan_.declare("terms", sizeof(std::int64_t) * kTermWords, BufferUse::kept);
    add_term(spec.gaussian(), spec.params.gaussian_weight, std::max<std::int64_t>(1, gaussian_vertices));
    const auto bilateral = spec.bilateral();
    add_term(bilateral, spec.params.bilateral_weight, bilateral ? bilateral->capacity : 0);
}

void FieldWriter::add_term(const std::optional<LatticeSpec>& lattice, double weight, std::int64_t vertices) {
    if (!lattice) return;
    const std::int64_t stride_bytes = std::int64_t{4} * storage_.stride();
    const std::string name = lattice->name();
    terms_.push_back({LatticeWriter(*lattice, plan_), static_cast<float>(weight)});
    plan_.declare(name + ".values", storage_.row_bytes() * vertices, BufferUse::scratch);
    plan_.declare(name + ".scale", stride_bytes, BufferUse::kept);
    plan_.declare(name + ".matrix", stride_bytes * spec_.classes, BufferUse::kept);
    plan_.declare("other_values", storage_.row_bytes() * vertices, BufferUse::scratch);
    plan_.declare("tails", stride_bytes * lattice->slices(), BufferUse::scratch);
    plan_.declare("terms", static_cast<std::int64_t>(terms_.size() * sizeof(std::int64_t)) * kTermWords,
                  BufferUse::kept);
}

LaunchPlan FieldWriter::build() {
    plan_.begin_sequence("build");
    plan_.begin("construction", "gaussian");
    plan_.fill(plan_["report"], 0);
    if (spec_.gaussian()) terms_.front().lattice.build();
    return plan_.take();
}

LaunchPlan FieldWriter::run(const KernelCompatibilities& compatibilities) {
    set_terms(compatibilities);
    frame();
    outputs();
    return plan_.take();
}

/// The table that the update reads, and what it points to: what a unit of filter response adds to −U.
void FieldWriter::set_terms(const KernelCompatibilities& compatibilities) {
    const auto stride = static_cast<std::size_t>(storage_.stride());
    const auto classes = static_cast<std::size_t>(spec_.classes);
    Words words;
    for (const PlannedTerm& term : terms_) {
        const bool is_gaussian = term.lattice.spec().corners == kGaussianCorners;
        const Compatibility& compatibility = is_gaussian ? compatibilities.gaussian : compatibilities.bilateral;
        std::vector<float> scale(stride, 1.0f);
        std::vector<float> matrix(classes * stride);
        for (std::size_t c = 0; c < compatibility.diagonal.size(); ++c) {
            scale[c] = -term.weight * compatibility.diagonal[c];
        }
        for (std::size_t i = 0; i < compatibility.matrix.size(); ++i) {
            matrix[i / classes * stride + i % classes] = -term.weight * compatibility.matrix[i];
        }
        for (const char* pointer : {"values", "pixel_vertices", "weights", "scale"}) {
            words.push_back(term.lattice.own(pointer));
        }
        plan_.set_content({term.lattice.own("scale").buffer, std::move(scale)});
        if (compatibility.diagonal.empty()) {
            words.push_back(term.lattice.own("matrix"));
            plan_.set_content({term.lattice.own("matrix").buffer, std::move(matrix)});
        } else {
            words.emplace_back(std::in_place_type<std::int64_t>, 0);
        }
        words.emplace_back(std::in_place_type<std::int64_t>, term.lattice.spec().corners);
    }
    if (!words.empty()) plan_.set_content({"terms", std::move(words)});
}

void FieldWriter::frame() {
    plan_.begin_sequence("frame");
    plan_.begin("input");
    plan_.fill(status().part(0, 4), 0);
    plan_.fill(status().part(4, 4), 0xFFFFFFFF);
    plan_.tiles("crf_read_probabilities", plane_blocks(), kPlaneTile, kPlaneRows, plan_["planes"], spec_.images,
                spec_.classes, spec_.batch().area(), storage_.stride(), kProbabilityFloor,
                1.0f / static_cast<float>(spec_.params.unary_temperature), plan_["logits"], status());
    if (spec_.bilateral()) {
        plan_.begin("construction", "bilateral");
        terms_.back().lattice.build();
    }
    plan_.begin("input");
    update(0, spec_.iterations == 0);  // without terms: softmax(−U)
    for (int iteration = 0; iteration < spec_.iterations; ++iteration) {
        for (PlannedTerm& term : terms_) {
            plan_.begin("iteration", term.lattice.spec().name());
            term.lattice.filter(storage_, plan_["rows"], term.lattice.own("values"), plan_["other_values"],
                                plan_["tails"]);
        }
        plan_.begin("iteration");
        update(terms_.size(), iteration == spec_.iterations - 1);
    }
}

/// One update; the last one writes single precision, over the unaries.
void FieldWriter::update(std::size_t terms, bool is_last) {
    const bool is_wide = storage_.lanes > kWarp;  // more lanes than a warp has: two vectors a lane
    int lanes = 1;                                // a power of two, so that lanes exchange by halving distances
    while (lanes < ceil_div(storage_.lanes, is_wide ? 2 : 1)) lanes *= 2;
    const std::string kernel = is_last ? "crf_last_step_" : "crf_step_";
    const std::int64_t pixels = spec_.batch().pixels();
    plan_.rows(kernel + storage_.suffix + (is_wide ? "_wide" : ""), pixels, lanes, plan_["terms"], terms,
               plan_["logits"], pixels, spec_.classes, storage_.stride(), plan_[is_last ? "logits" : "rows"], status());
}

void FieldWriter::outputs() {
    const std::int64_t pixels = spec_.batch().pixels();
    plan_.begin("output");
    plan_.begin_sequence("labels");
    plan_.each("crf_write_labels", pixels, plan_["logits"], pixels, spec_.classes, storage_.stride(), plan_["labels"],
               status());
    plan_.begin_sequence("marginals");
    plan_.tiles("crf_write_marginals", plane_blocks(), kPlaneTile, kPlaneRows, plan_["logits"], spec_.images,
                spec_.classes, spec_.batch().area(), storage_.stride(), plan_["marginals"], status());
    plan_.begin_sequence("report");
    plan_.copy(plan_["report"], plan_["report_copy"]);
}

}  // namespace

RowStorage FieldSpec::storage() const {
    // Rows are whole 16-byte vectors.
    if (has_fractions) return {"u16", 2, 8, static_cast<int>(ceil_div(classes, 8))};
    return {"f32", 4, 4, static_cast<int>(ceil_div(classes, 4))};
}

std::optional<LatticeSpec> FieldSpec::gaussian() const {
    if (iterations == 0 || params.gaussian_weight == 0) return std::nullopt;
    const auto sigma_xy_px = static_cast<float>(params.gaussian_sigma_xy_px);
    // Room for all: it is built once, and its vertices are not known before.
    return LatticeSpec{
        batch(), kGaussianCorners, kGaussianCorners * batch().points(), has_fractions, normalization, sigma_xy_px, 0};
}

std::optional<LatticeSpec> FieldSpec::bilateral() const {
    if (iterations == 0 || params.bilateral_weight == 0) return std::nullopt;
    const std::int64_t wanted = std::max(vertices_per_pixel * batch().pixels(), kMinCapacity);
    const auto sigma_xy_px = static_cast<float>(params.bilateral_sigma_xy_px);
    return LatticeSpec{
        batch(),       kBilateralCorners, std::min(wanted, kBilateralCorners * batch().points()), has_fractions,
        normalization, sigma_xy_px,       static_cast<float>(params.bilateral_sigma_rgb)};
}

std::optional<FieldSpec> FieldSpec::grown() const {
    const auto lattice = bilateral();
    if (!lattice || lattice->capacity == lattice->entries()) return std::nullopt;
    FieldSpec larger = *this;
    larger.vertices_per_pixel *= 2;
    return larger;
}

std::int64_t FieldSpec::estimate_bytes() const {
    std::int64_t bytes = 4 * batch().pixels();  // images and labels, whoever has them
    const LaunchPlan plan = FieldWriter(*this, 1, batch().pixels()).run({});
    for (const PlannedBuffer& buffer : plan.buffers) bytes += buffer.use == BufferUse::given ? 0 : buffer.bytes;
    return bytes;
}

std::string FieldSpec::describe() const {
    return format("a dense CRF of %d classes on %d×%d×%d pixels", classes, images, height, width);
}

LaunchPlan plan_field(const FieldSpec& spec, const KernelCompatibilities& compatibilities, int multiprocessors,
                      std::optional<std::int64_t> gaussian_vertices) {
    const std::int64_t values = spec.batch().pixels() * spec.classes;
    if (kBilateralCorners * spec.batch().points() >= kMaxEntries || values >= kMaxValues) {
        const std::int64_t limit = std::min(kMaxEntries / kBilateralCorners, kMaxValues / spec.classes);
        throw CrfError(
            spec.describe() +
            format(" needs about %.1f GiB, and its indices exceed 32 bits: the limit is %.0f million pixels. "
                   "Refine a smaller image, fewer images at once, or tiles",
                   static_cast<double>(spec.estimate_bytes()) / (1 << 30), static_cast<double>(limit) / 1e6));
    }
    FieldWriter writer(spec, multiprocessors, gaussian_vertices.value_or(0));
    return gaussian_vertices ? writer.run(compatibilities) : writer.build();
}

void check_sigmas(const FieldSpec& spec, std::uint32_t failures, bool is_build) {
    const CrfParams& params = spec.params;
    if (is_build && failures != 0) {
        throw CrfError(
            format("the Gaussian's sigma of %g px is too small for %d×%d pixels: lattice coordinates exceed "
                   "20 bits. Use a larger sigma",
                   params.gaussian_sigma_xy_px, spec.height, spec.width));
    }
    if ((failures & kKeyRange) == 0) return;
    throw CrfError(
        format("lattice coordinates of the bilateral kernel exceed their keys: a sigma is too small for the "
               "image's size or colours (xy %g px, rgb %g). Use a larger sigma, or the CRF on the CPU",
               params.bilateral_sigma_xy_px, params.bilateral_sigma_rgb));
}

}  // namespace atrous
