#include "launch_plan.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "channels.hpp"
#include "native/error.hpp"
#include "resampling.hpp"
#include "runtime/kernels/constants.cuh"

namespace atrous {
namespace {

/// Kernels index with 32 bits, and step beyond the last item.
constexpr std::int64_t kMaxItems = (std::int64_t{1} << 31) - (std::int64_t{1} << 24);
constexpr std::uint32_t kNone = 0xFFFFFFFF;

std::int64_t whole_words(std::int64_t bytes) {
    return ceil_div(bytes, 4) * 4;
}

/// Images in memory, or the same part of each.
struct Images {
    Slot pixels;  ///< from the first pixel on
    PixelFormat format;
    Size size;
    int row_bytes, image_bytes;

    static Images packed(const Slot& pixels, const PixelFormat& format, const Size& size) {
        return {pixels, format, size, format.bytes() * size.width, static_cast<int>(format.bytes() * size.area())};
    }
    int row_values() const { return row_bytes / format.sample_bytes(); }
    int image_values() const { return image_bytes / format.sample_bytes(); }
    /// The part that a tile covers, which may begin beyond the image.
    Images tile(int top, int left, const Size& tile_size) const {
        const Size covered{std::clamp(size.height - top, 0, tile_size.height),
                           std::clamp(size.width - left, 0, tile_size.width)};
        const bool is_empty = covered.area() == 0;
        const std::int64_t corner = is_empty ? 0 : std::int64_t{top} * row_bytes + std::int64_t{format.bytes()} * left;
        return {pixels.part(corner, pixels.bytes - corner), format, covered, row_bytes, image_bytes};
    }
};

/// Writes down a frame.
class FrameWriter {
  public:
    FrameWriter(const FrameSpec& spec, int multiprocessors);
    LaunchPlan run();

  private:
    void set_tables();
    void queue_colors();
    void resize_pass(const Images& images, const ResizePass& pass, const Slot& first, const Slot& weights,
                     const Slot& resized);
    Images resize(Images images, const Size& to);
    void normalize(const Images& images, int top, int left);
    void preprocess();
    void infer_tiles(const TilePlan& tiles);
    void check();
    void resample(const std::string& what, float background);
    void apply_threshold();
    std::string logits_suffix() const { return spec_.has_half_output && !spec_.tiles ? "_f16" : "_f32"; }
    Slot logits() const { return plan_[spec_.tiles ? "blended" : "output"]; }
    std::int64_t values(int channels, const Size& size) const { return spec_.images * channels * size.area(); }
    Images pictures() { return Images::packed(plan_["pictures"], format_, spec_.geometry.image); }
    bool is_rgb() const { return format_ == PixelFormat{}; }
    /// Of the names of kernels for bands.
    std::string sample_suffix() const {
        return format_.sample == Sample::uint8 ? "_u8" : format_.sample == Sample::uint16 ? "_u16" : "_f32";
    }

    const FrameSpec& spec_;
    PixelFormat format_;
    PlanWriter plan_;
};

FrameWriter::FrameWriter(const FrameSpec& spec, int multiprocessors)
    : spec_(spec), format_(spec.pixels.format()), plan_(multiprocessors) {
    const std::int64_t pixels = spec.images * spec.geometry.image.area();
    plan_.declare("pictures", whole_words(format_.bytes() * pixels), BufferUse::given);
    plan_.declare("first_bad", 4, BufferUse::given);
    plan_.declare("labels", spec.label_bytes() * pixels, BufferUse::given);
    plan_.declare("probabilities", 4 * values(spec.classes, spec.geometry.image), BufferUse::given);
    plan_.declare("input", (spec.has_half_input ? 2 : 4) * values(format_.channels, spec.input()), BufferUse::kept);
    plan_.declare("output", (spec.has_half_output ? 2 : 4) * values(spec.channels(), spec.output), BufferUse::kept);
    plan_.declare("blended", 4 * values(spec.channels(), spec.coarse()), BufferUse::kept);
    plan_.declare("scores", 4 * values(spec.classes, spec.coarse()), BufferUse::scratch);
    if (spec.colors) plan_.declare("colors", whole_words(3 * pixels), BufferUse::kept);
    set_tables();
}

/// What buffers hold from the start.
void FrameWriter::set_tables() {
    const PixelScaling& pixels = spec_.pixels;
    std::vector<float> constants(pixels.mean.begin(), pixels.mean.end());
    constants.insert(constants.end(), pixels.std.begin(), pixels.std.end());
    for (int c = 0; c < format_.channels; ++c) constants.push_back(pixels.padding(c));
    plan_.table("constants", std::move(constants));
    if (spec_.colors) {
        const BandColors& colors = *spec_.colors;
        std::vector<float> scaling(colors.band.begin(), colors.band.end());
        scaling.insert(scaling.end(), colors.low.begin(), colors.low.end());
        scaling.insert(scaling.end(), colors.factor.begin(), colors.factor.end());
        plan_.table("color_scaling", std::move(scaling));
    }
    if (!spec_.tiles) return;
    plan_.table("row_weights", spec_.tiles->row_weights());
    plan_.table("column_weights", spec_.tiles->column_weights());
    plan_.table("sum_weights", spec_.tiles->sum_weights());
}

LaunchPlan FrameWriter::run() {
    const std::int64_t pixels = spec_.images * spec_.geometry.image.area();
    if (is_rgb()) {
        plan_.begin_sequence("swap");
        plan_.begin("preprocess");
        plan_.each("frame_swap_channels", pixels, plan_["pictures"], pixels);
    }
    if (spec_.colors) queue_colors();
    if (spec_.tiles) {
        infer_tiles(*spec_.tiles);
    } else {
        preprocess();
        plan_.begin_sequence("inference");
        plan_.begin("inference");
        plan_.infer(plan_["input"], plan_["output"]);
    }
    check();
    resample("labels", spec_.threshold ? threshold_logit(*spec_.threshold) : 0.0f);
    resample("probabilities", 0.0f);
    if (spec_.threshold) apply_threshold();
    return plan_.take();
}

void FrameWriter::queue_colors() {
    plan_.begin_sequence("colors");
    plan_.begin("crf");
    const std::int64_t pixels = spec_.images * spec_.geometry.image.area();
    plan_.each("frame_color_bands" + sample_suffix(), 3 * pixels, plan_["pictures"], pixels, format_.channels,
               plan_["color_scaling"], plan_["colors"]);
}

void FrameWriter::preprocess() {
    plan_.begin_sequence("preprocess");
    plan_.begin("preprocess");
    const Images images = pictures();
    const Window content = spec_.geometry.content();
    normalize(images.size == content.size ? images : resize(images, content.size), content.top, content.left);
}

Images FrameWriter::resize(Images images, const Size& to) {
    const Size& from = images.size;
    int number = 0;
    for (ResizePass& pass : plan_resize(from.height, from.width, to.height, to.width)) {
        const std::string suffix = "." + std::to_string(number++);
        const Size size{pass.height, pass.width};
        plan_.declare("resized" + suffix, format_.bytes() * spec_.images * size.area(), BufferUse::scratch);
        const Slot resized = plan_["resized" + suffix];
        const Slot first = plan_.table("first" + suffix, std::move(pass.resampling.first));
        const Slot weights = plan_.table("weights" + suffix, std::move(pass.resampling.weights));
        resize_pass(images, pass, first, weights, resized);
        images = Images::packed(resized, format_, size);
    }
    return images;
}

void FrameWriter::resize_pass(const Images& images, const ResizePass& pass, const Slot& first, const Slot& weights,
                              const Slot& resized) {
    const int taps = pass.resampling.taps;
    const std::int64_t rows = std::int64_t{spec_.images} * pass.height;
    if (pass.is_down) {  // bytes of any number of channels alike
        const bool is_bytes = format_.sample == Sample::uint8;
        const std::string kernel = is_bytes ? "frame_resize_columns" : "frame_resize_band_columns" + sample_suffix();
        plan_.each(kernel, rows * images.row_values(), images.pixels, spec_.images, images.size.height,
                   images.row_values(), first, weights, taps, pass.height, resized);
    } else if (is_rgb()) {
        plan_.each("frame_resize_rows", rows * pass.width, images.pixels, rows, images.row_bytes, first, weights, taps,
                   pass.width, resized);
    } else {
        plan_.each("frame_resize_band_rows" + sample_suffix(), rows * pass.width * format_.channels, images.pixels,
                   rows, images.row_values(), format_.channels, first, weights, taps, pass.width, resized);
    }
}

/// The images lie `top` pixels below and `left` pixels right of the input's corner.
void FrameWriter::normalize(const Images& images, int top, int left) {
    const Size out = spec_.input();
    if (!is_rgb()) {
        const std::string kernel = "frame_normalize_bands" + sample_suffix() + (spec_.has_half_input ? "_f16" : "_f32");
        plan_.each(kernel, values(format_.channels, out), images.pixels, spec_.images, images.size.height,
                   images.size.width, images.row_values(), images.image_values(), format_.channels, plan_["constants"],
                   top, left, out.height, out.width, plan_["input"]);
        return;
    }
    plan_.each(spec_.has_half_input ? "frame_normalize_f16" : "frame_normalize_f32",
               spec_.images * std::int64_t{out.height} * ceil_div(out.width, kRun), images.pixels, spec_.images,
               images.size.height, images.size.width, images.row_bytes, images.image_bytes, plan_["constants"],
               spec_.pixels.swap_rgb, top, left, out.height, out.width, plan_["input"]);
}

/// One tile after the other, each of all images.
void FrameWriter::infer_tiles(const TilePlan& tiles) {
    const Size cells = tiles.coarse(tiles.tile);
    const Size whole = tiles.coarse(tiles.full);
    const Images images = pictures();
    const Slot blended = plan_["blended"];
    const std::int64_t planes = std::int64_t{spec_.images} * spec_.channels();
    plan_.begin_sequence("inference");
    plan_.begin("inference");
    plan_.fill(blended, 0);
    for (std::size_t i = 0; i < tiles.tops.size(); ++i) {
        const Slot rows = plan_["row_weights"].part(4 * i * cells.height, std::int64_t{4} * cells.height);
        for (std::size_t j = 0; j < tiles.lefts.size(); ++j) {
            const Slot columns = plan_["column_weights"].part(4 * j * cells.width, std::int64_t{4} * cells.width);
            const std::int64_t cell =
                std::int64_t{tiles.tops[i] / tiles.stride} * whole.width + tiles.lefts[j] / tiles.stride;
            normalize(images.tile(tiles.tops[i], tiles.lefts[j], tiles.tile), 0, 0);
            plan_.infer(plan_["input"], plan_["output"]);
            plan_.each(spec_.has_half_output ? "frame_blend_tile_f16" : "frame_blend_tile_f32", planes * cells.area(),
                       plan_["output"], planes, cells.height, cells.width, rows, columns, whole.area(), whole.width,
                       blended.part(4 * cell, blended.bytes - 4 * cell));
        }
    }
    plan_.each("frame_average_tiles", planes * whole.area(), plan_["sum_weights"], planes, whole.area(), blended);
}

void FrameWriter::check() {
    plan_.begin_sequence("check");
    plan_.begin("postprocess");
    plan_.fill(plan_["first_bad"], kNone);
    const std::int64_t count = values(spec_.channels(), spec_.coarse());
    plan_.each("frame_find_not_finite" + logits_suffix(), count, logits(), count, plan_["first_bad"]);
}

/// A sequence of the name of what it writes; `background` is the logit of class 0 that one channel is compared with.
void FrameWriter::resample(const std::string& what, float background) {
    plan_.begin_sequence(what);
    plan_.begin("postprocess");
    const Size from = spec_.coarse();
    const Size& out = spec_.geometry.image;
    const auto [rows, columns, align_corners] = plan_sampling(spec_.whole(), from, spec_.align_corners);
    Slot scores = logits();
    std::string suffix = logits_suffix();
    if (spec_.threshold) {
        scores = plan_["scores"];
        plan_.each("frame_add_background" + suffix, values(1, from), logits(), spec_.images, from.area(), background,
                   scores);
        suffix = "_f32";
    }
    const std::int64_t first = (std::int64_t{rows.first} * from.width + columns.first) * (suffix == "_f16" ? 2 : 4);
    const std::string kernel = what == "labels" && spec_.label_bytes() == 2 ? "frame_wide_labels" : "frame_" + what;
    plan_.each(kernel + suffix, spec_.images * std::int64_t{out.height} * ceil_div(out.width, kRun),
               scores.part(first, scores.bytes - first), spec_.images, spec_.classes, from.area(), from.width,
               rows.cells, columns.cells, rows.scale, columns.scale, rows.shift, columns.shift, align_corners,
               out.height, out.width, plan_[what]);
}

void FrameWriter::apply_threshold() {
    plan_.begin_sequence("threshold");
    plan_.begin("postprocess");
    const std::int64_t pixels = spec_.geometry.image.area();
    plan_.each("frame_apply_threshold", spec_.images * pixels, plan_["probabilities"], spec_.images, pixels,
               static_cast<float>(*spec_.threshold), plan_["labels"]);
}

}  // namespace

LaunchPlan plan_frame(const FrameSpec& spec, int multiprocessors) {
    if (spec.tiles) spec.tiles->check_logits(spec.output);
    const std::int64_t pixels = std::max(spec.geometry.image.area(), spec.input().area());
    const std::int64_t cells = std::max(spec.output.area(), spec.coarse().area());
    const int channels = std::max(3, spec.pixels.format().channels);  // colours are three
    const std::int64_t items = spec.images * std::max(channels * pixels, spec.classes * cells);
    if (items > kMaxItems) {
        throw ShapeError(std::to_string(spec.images) + "x" + to_text(spec.geometry.image) + " pixels of " +
                             std::to_string(spec.classes) +
                             " classes are beyond the 32-bit indices of the kernels. Segment fewer images at once, or "
                             "smaller ones",
                         "at most " + std::to_string(kMaxItems) + " values", std::to_string(items) + " values");
    }
    return FrameWriter(spec, multiprocessors).run();
}

LaunchPlan plan_overlay(std::int64_t pixels, float alpha, int multiprocessors) {
    PlanWriter plan(multiprocessors);
    plan.declare("pictures", 3 * pixels, BufferUse::given);
    plan.declare("labels", pixels, BufferUse::given);
    plan.declare("palette", std::int64_t{3} * 256, BufferUse::given);
    plan.declare("overlay", 3 * pixels, BufferUse::given);
    plan.begin_sequence("overlay");
    plan.begin("output");
    plan.each("frame_overlay", ceil_div(pixels, kRun), plan["pictures"], plan["labels"], plan["palette"], alpha, pixels,
              plan["overlay"]);
    return plan.take();
}

}  // namespace atrous
