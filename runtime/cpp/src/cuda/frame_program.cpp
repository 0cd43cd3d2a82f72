#include "cuda/frame_program.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#include "cuda/images.hpp"
#include "engine_guard.hpp"
#include "failure.hpp"

namespace atrous::core::cuda {
namespace {

constexpr std::uint32_t kNone = 0xFFFFFFFF;

std::size_t count_pixels(const Size& size) {
    return static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width);
}

/// Half precision to single, exactly.
float from_half(std::uint16_t bits) {
    const int exponent = bits >> 10 & 0x1f;
    const int mantissa = bits & 0x3ff;
    const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
    if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
    return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

void copy_rows(const std::uint8_t* from, std::int64_t from_bytes, std::uint8_t* to, std::int64_t to_bytes,
               const Size& size, int bytes_a_pixel) {
    for (int y = 0; y < size.height; ++y) {
        std::memcpy(to + y * to_bytes, from + y * from_bytes, static_cast<std::size_t>(size.width) * bytes_a_pixel);
    }
}

}  // namespace

Queues::Queues(const std::shared_ptr<const Device>& device)
    : stream(device),
      frames(device, stream, kFrameImage),
      crf(device, stream, kCrfImage),
      convert(device, stream, kConvertImage) {}

FrameProgram::FrameProgram(const Recipe& recipe, Queues& queues, const Size& size, bool wants_probabilities)
    : recipe_(recipe),
      queues_(queues),
      manifest_(recipe.bundle->manifest()),
      size_(size),
      wants_probabilities_(wants_probabilities),
      geometry_(plan_geometry(size, manifest_.input)),
      caller_(recipe.device) {
    if (3 * count_pixels(size) >= std::size_t{1} << 31) {
        fail(ATROUS_ERROR_SHAPE, "a picture of ", to_text(size), " pixels is beyond the 32-bit indices of the kernels");
    }
    const auto& device = recipe_.device;
    const auto memory = [&](std::size_t bytes) { return Memory(device, (bytes + 3) / 4 * 4); };
    if (needs_tiles(geometry_, manifest_.input)) {
        tiles_ = plan_tiles(geometry_, manifest_.input, manifest_.output);
        geometry_.full = tiles_->full;
    }
    const Size input = tiles_ ? tiles_->tile : geometry_.input;
    layout_ = call_engine(recipe_.artifact, [&] {
        engine_ = recipe_.backend->open_engine();
        return engine_->prepare(input);
    });
    const auto classes = static_cast<int>(manifest_.classes.size());
    if (layout_.channels != classes) {
        fail(ATROUS_ERROR_ENGINE, recipe_.artifact, " gives ", layout_.channels, " classes; the manifest lists ",
             classes);
    }
    pictures_ = memory(3 * count_pixels(size));
    input_ = memory(3 * count_pixels(input) * (layout_.has_half_input ? 2 : 4));
    output_ = memory(classes * count_pixels(layout_.output) * (layout_.has_half_output ? 2 : 4));
    constants_ = upload_constants(device, queues_.stream, manifest_.input);
    answer_ = memory(sizeof(Answer));
    labels_ = memory(count_pixels(size));
    if (wants_probabilities) probabilities_ = memory(classes * count_pixels(size) * sizeof(float));
    sent_ = HostMemory(device, 3 * count_pixels(size));
    received_ = HostMemory(device, sizeof(Answer));
    if (manifest_.input.stretches && size != input) stretch_.emplace(device, queues_.stream, size, input);
    if (recipe_.crf) {
        field_.emplace(queues_.crf, FieldSpec{classes, size.height, size.width, recipe_.crf_iterations, *recipe_.crf,
                                              recipe_.crf_has_fractions});
    }
    logits_ = {output_.region(), classes, layout_.output, layout_.has_half_output};
    if (tiles_) {
        const Size coarse = tiles_->coarse(tiles_->full);
        blended_ = memory(classes * count_pixels(coarse) * sizeof(float));
        logits_ = {blended_.region(), classes, coarse, false};
    }
    for (int i = 0; i < kMarks; ++i) marks_.emplace_back(device);
    record();
}

FrameProgram::~FrameProgram() {
    try {
        const Current current(*recipe_.device);
        queues_.stream.synchronize();
    } catch (const Failure&) {  // the GPU failed before, and that was reported
    }
}

void FrameProgram::run(const Frame& frame, Timings& timings) {
    for (;;) {
        queue_picture(frame);
        queue_work(true);
        queues_.stream.download(received_.data(), answer_.region(), sizeof(Answer));
        queues_.stream.synchronize();
        const auto* answer = reinterpret_cast<const Answer*>(received_.data());
        if (!field_ || answer->first_bad != kNone || (answer->report.failures & kTableFull) == 0) break;
        const std::optional<FieldSpec> grown = field_->spec().grown();
        if (!grown) break;
        crf_ = postprocess_ = Graph();
        field_.reset();  // frees the old memory before the new is taken
        field_.emplace(queues_.crf, *grown);
        record();
    }
    check_answer();
    deliver(frame);
    add_timings(timings);
}

void FrameProgram::queue_picture(const Frame& frame) {
    const Stream& stream = queues_.stream;
    const std::int64_t packed_bytes = std::int64_t{3} * size_.width;
    if (frame.on_device) {
        recipe_.device->check_owns(frame.pixels, "frame->pixels");
        recipe_.device->check_owns(frame.labels, "frame->labels");
        if (frame.probabilities != nullptr) recipe_.device->check_owns(frame.probabilities, "frame->probabilities");
        recipe_.device->check_owns_stream(frame.stream);
        caller_.record(frame.stream);
        caller_.make_wait(stream);
        const Region pixels{reinterpret_cast<Address>(frame.pixels), 0};
        queues_.convert.each("convert_to_rgb", static_cast<std::int64_t>(count_pixels(size_)), pixels, frame.row_bytes,
                             size_.height, size_.width, frame.is_bgr ? 1 : 0, pictures_.region());
        return;
    }
    // Packed and in RGB on the way into pinned memory, from which the copy runs by itself.
    copy_rows(frame.pixels, frame.row_bytes, sent_.data(), packed_bytes, size_, 3);
    if (frame.is_bgr) {
        std::uint8_t* const end = sent_.data() + 3 * count_pixels(size_);
        for (std::uint8_t* pixel = sent_.data(); pixel != end; pixel += 3) std::swap(pixel[0], pixel[2]);
    }
    stream.upload(pictures_.region(), sent_.data(), 3 * count_pixels(size_));
}

void FrameProgram::queue_work(bool recorded) {
    const auto queue = [&](const Graph& graph, void (FrameProgram::*direct)()) {
        if (recorded && graph) {
            graph.replay(queues_.stream);
        } else {
            (this->*direct)();
        }
    };
    marks_[kStart].record(queues_.stream.handle());
    if (tiles_) {
        marks_[kPrepared].record(queues_.stream.handle());
        queue_tiles();
    } else {
        queue(preprocess_, &FrameProgram::queue_input);
        marks_[kPrepared].record(queues_.stream.handle());
        queue(inference_, &FrameProgram::queue_inference);
    }
    marks_[kInferred].record(queues_.stream.handle());
    queue(postprocess_, &FrameProgram::queue_postprocess);
    marks_[kUpsampled].record(queues_.stream.handle());
    if (field_) queue(crf_, &FrameProgram::queue_crf);
    marks_[kRefined].record(queues_.stream.handle());
}

/// Runs once on a black picture, so that everything is loaded, and records the stages.
void FrameProgram::record() {
    const Stream& stream = queues_.stream;
    stream.fill(pictures_.region(), 0);
    queue_work(false);
    stream.synchronize();
    const auto& device = recipe_.device;
    if (!tiles_) {
        preprocess_ = Graph(device, stream, [this] { queue_input(); });
        if (engine_->is_capturable()) inference_ = Graph(device, stream, [this] { queue_inference(); });
    }
    postprocess_ = Graph(device, stream, [this] { queue_postprocess(); });
    if (field_) crf_ = Graph(device, stream, [this] { queue_crf(); });
}

void FrameProgram::queue_input() {
    DevicePicture picture{pictures_.region(), size_, 3 * size_.width};
    if (stretch_) picture = stretch_->queue(queues_.frames, picture);
    queue_normalize(queues_.frames, picture, constants_, manifest_.input, geometry_.input, layout_.has_half_input,
                    input_.region());
}

void FrameProgram::queue_inference() {
    call_engine(recipe_.artifact, [&] { engine_->queue(input_.region(), output_.region(), queues_.stream); });
}

/// Tiles one after the other; their logits, 1 / stride² of the picture, are blended on the CPU.
void FrameProgram::queue_tiles() {
    const std::size_t count = static_cast<std::size_t>(layout_.channels) * count_pixels(layout_.output);
    const auto infer = [&](int top, int left) -> Logits {
        const Size covered{std::clamp(size_.height - top, 0, tiles_->tile.height),
                           std::clamp(size_.width - left, 0, tiles_->tile.width)};
        const bool is_empty = covered.height == 0 || covered.width == 0;
        const std::size_t corner = is_empty ? 0 : 3 * (static_cast<std::size_t>(top) * size_.width + left);
        const DevicePicture tile{{pictures_.region().address + corner, 0}, covered, 3 * size_.width};
        queue_normalize(queues_.frames, tile, constants_, manifest_.input, tiles_->tile, layout_.has_half_input,
                        input_.region());
        queue_inference();
        tile_values_.resize(count);
        if (layout_.has_half_output) {
            std::vector<std::uint16_t> halves(count);
            queues_.stream.download(halves.data(), output_.region(), 2 * count);
            queues_.stream.synchronize();
            std::transform(halves.begin(), halves.end(), tile_values_.begin(), from_half);
        } else {
            queues_.stream.download(tile_values_.data(), output_.region(), 4 * count);
            queues_.stream.synchronize();
        }
        return {tile_values_.data(), layout_.channels, layout_.output};
    };
    const Logits whole = blend_tiles(*tiles_, infer, blended_values_);
    queues_.stream.upload(blended_.region(), whole.values, whole.count() * sizeof(float));
}

void FrameProgram::queue_postprocess() {
    const bool align = manifest_.output.align_corners;
    queue_find_not_finite(queues_.frames, logits_, answer_part(0, 4));
    if (field_) {
        queue_probabilities(queues_.frames, logits_, geometry_, align, field_->probabilities());
        return;
    }
    cuda::queue_labels(queues_.frames, logits_, geometry_, align, labels_.region());
    if (wants_probabilities_) {
        queue_probabilities(queues_.frames, logits_, geometry_, align, probabilities_.region());
    }
}

void FrameProgram::queue_crf() {
    field_->queue_frame(pictures_.region());
    field_->queue_labels(labels_.region());
    if (wants_probabilities_) field_->queue_marginals(probabilities_.region());
    field_->queue_report(answer_part(offsetof(Answer, report), sizeof(FieldReport)));
}

void FrameProgram::check_answer() const {
    const auto* answer = reinterpret_cast<const Answer*>(received_.data());
    if (answer->first_bad != kNone) {
        fail(ATROUS_ERROR_ENGINE, recipe_.artifact,
             " gives logits that are not finite; overflow in half precision is a common cause");
    }
    if (!field_ || answer->report.failures == 0) return;
    check_sigmas(field_->spec(), answer->report.failures, false);
    fail(ATROUS_ERROR_DEVICE, "the dense CRF failed on the GPU with bits ", answer->report.failures);
}

void FrameProgram::deliver(const Frame& frame) {
    const Stream& stream = queues_.stream;
    const std::size_t map_bytes = manifest_.classes.size() * count_pixels(size_) * sizeof(float);
    if (!frame.on_device) {
        if (frame.has_packed_labels()) {
            stream.download(frame.labels, labels_.region(), count_pixels(size_));
        } else {
            stream.download(sent_.data(), labels_.region(), count_pixels(size_));  // the picture is no longer needed
        }
        if (frame.probabilities != nullptr) stream.download(frame.probabilities, probabilities_.region(), map_bytes);
        stream.synchronize();
        if (!frame.has_packed_labels()) {
            copy_rows(sent_.data(), size_.width, frame.labels, frame.label_row_bytes, size_, 1);
        }
        return;
    }
    Copy2d rows{};
    rows.source_type = rows.target_type = kDeviceMemory;
    rows.source_device = labels_.region().address;
    rows.source_pitch = rows.width_bytes = static_cast<std::size_t>(size_.width);
    rows.target_device = reinterpret_cast<Address>(frame.labels);
    rows.target_pitch = static_cast<std::size_t>(frame.label_row_bytes);
    rows.height = static_cast<std::size_t>(size_.height);
    check(driver().cuMemcpy2DAsync_v2(&rows, stream.handle()), "copying labels");
    if (frame.probabilities != nullptr) {
        stream.copy({reinterpret_cast<Address>(frame.probabilities), map_bytes},
                    probabilities_.region().part(0, map_bytes));
    }
    stream.synchronize();
}

void FrameProgram::add_timings(Timings& timings) const {
    const Stage stages[] = {Stage::preprocess, Stage::inference, Stage::postprocess, Stage::crf};
    for (int i = 0; i < kMarks - 1; ++i) {
        if (i == kUpsampled && !field_) continue;
        timings.ms[static_cast<int>(stages[i])] += marks_[i + 1].ms_since(marks_[i]);
    }
}

}  // namespace atrous::core::cuda
