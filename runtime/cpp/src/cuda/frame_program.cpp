#include "cuda/frame_program.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "cuda/images.hpp"
#include "engine_guard.hpp"
#include "failure.hpp"

namespace atrous::core::cuda {
namespace {

constexpr std::uint32_t kNone = 0xFFFFFFFF;

void copy_rows(const std::uint8_t* from, std::int64_t from_bytes, std::uint8_t* to, std::int64_t to_bytes,
               const Size& size, int bytes_a_pixel) {
    for (int y = 0; y < size.height; ++y) {
        std::memcpy(to + y * to_bytes, from + y * from_bytes, static_cast<std::size_t>(size.width) * bytes_a_pixel);
    }
}

}  // namespace

Queues::Queues(const std::shared_ptr<const Device>& device)
    : stream(device), frames(device, stream, kFrameImage), crf(device, stream, kCrfImage) {}

FrameProgram::FrameProgram(const Recipe& recipe, Queues& queues, const Size& size, bool wants_probabilities)
    : recipe_(recipe),
      queues_(queues),
      manifest_(recipe.bundle->manifest()),
      size_(size),
      wants_probabilities_(wants_probabilities),
      caller_(recipe.device) {
    const InputSpec& inputs = manifest_.input;
    const Geometry geometry = plan_geometry(size, inputs.size, inputs.resize);
    std::optional<TilePlan> tiles;
    if (needs_tiles(geometry, inputs.size)) tiles = plan_tiles(geometry, inputs.size, manifest_.output.stride);
    const EngineLayout layout = call_engine(recipe_.artifact, [&] {
        engine_ = recipe_.backend->open_engine();
        return engine_->prepare(tiles ? tiles->tile : geometry.input);
    });
    const auto classes = static_cast<int>(manifest_.classes.size());
    const int channels = manifest_.channels();
    if (layout.channels != channels) {
        fail(ATROUS_ERROR_ENGINE, recipe_.artifact, " gives ", layout.channels, " channels; the manifest says ",
             channels);
    }
    if (recipe_.crf && classes > 256) {
        fail(ATROUS_ERROR_CRF, "the dense CRF on a GPU takes up to 256 classes; '", manifest_.name, "' has ", classes,
             ". Refine on the CPU, with the openvino backend");
    }
    const FrameSpec spec{1,
                         classes,
                         manifest_.output.threshold,
                         geometry,
                         std::move(tiles),
                         inputs.scaling(false),
                         layout.has_half_input,
                         layout.output,
                         layout.has_half_output,
                         manifest_.output.align_corners,
                         inputs.crf_colors()};
    LaunchPlan plan = plan_frame(spec, recipe_.device->multiprocessors());
    allocate(plan);
    sequences_ = std::move(plan.sequences);
    if (recipe_.crf) {
        field_.emplace(queues_.crf, FieldSpec{classes, size.height, size.width, recipe_.crf_iterations, *recipe_.crf,
                                              recipe_.crf_has_fractions});
    }
    record();
}

void FrameProgram::allocate(const LaunchPlan& plan) {
    const auto& device = recipe_.device;
    memory_.allocate(plan, device, queues_.stream);
    std::map<std::string, std::size_t> bytes;
    for (const PlannedBuffer& planned : plan.buffers) bytes[planned.name] = static_cast<std::size_t>(planned.bytes);
    pictures_ = Memory(device, bytes.at("pictures"));
    answer_ = Memory(device, sizeof(Answer));
    labels_ = Memory(device, bytes.at("labels"));
    if (wants_probabilities_) probabilities_ = Memory(device, bytes.at("probabilities"));
    given_ = {{"pictures", pictures_.region()},
              {"first_bad", answer_part(0, 4)},
              {"labels", labels_.region()},
              {"probabilities", probabilities_.region()}};
    sent_ = HostMemory(device, std::max(bytes.at("pictures"), bytes.at("labels")));
    received_ = HostMemory(device, sizeof(Answer));
    for (std::size_t i = 0; i <= std::size(kStages); ++i) marks_.emplace_back(device);
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
        queue_work();
        queues_.stream.download(received_.data(), answer_.region(), sizeof(Answer));
        queues_.stream.synchronize();
        const auto* answer = reinterpret_cast<const Answer*>(received_.data());
        if (!field_ || answer->first_bad != kNone || (answer->report.failures & kTableFull) == 0) break;
        const std::optional<FieldSpec> grown = field_->spec().grown();
        if (!grown) break;
        graphs_ = {};
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
    const std::int64_t pixel_bytes = manifest_.input.format().bytes();
    const std::int64_t packed_bytes = pixel_bytes * size_.width;
    if (frame.on_device) {
        recipe_.device->check_owns(frame.pixels, "frame->pixels");
        recipe_.device->check_owns(frame.labels, "frame->labels");
        if (frame.probabilities != nullptr) recipe_.device->check_owns(frame.probabilities, "frame->probabilities");
        recipe_.device->check_owns_stream(frame.stream);
        caller_.record(frame.stream);
        caller_.make_wait(stream);
        stream.copy_rows({pictures_.region().address, packed_bytes},
                         {reinterpret_cast<Address>(frame.pixels), frame.row_bytes},
                         {size_.height, static_cast<int>(packed_bytes)});
        if (frame.is_bgr) queue("swap", given_);
        return;
    }
    // Packed and in RGB on the way into pinned memory, from which the copy runs by itself.
    copy_rows(frame.pixels, frame.row_bytes, sent_.data(), packed_bytes, size_, static_cast<int>(pixel_bytes));
    if (frame.is_bgr) {
        std::uint8_t* const end = sent_.data() + 3 * size_.area();
        for (std::uint8_t* pixel = sent_.data(); pixel != end; pixel += 3) std::swap(pixel[0], pixel[2]);
    }
    stream.upload(pictures_.region(), sent_.data(), static_cast<std::size_t>(pixel_bytes * size_.area()));
}

void FrameProgram::queue_work() {
    marks_.front().record(queues_.stream.handle());
    for (const Stage stage : kStages) {
        const auto index = static_cast<std::size_t>(stage);
        if (graphs_[index]) {
            graphs_[index].replay(queues_.stream);
        } else {
            queue_stage(stage);
        }
        marks_[index + 1].record(queues_.stream.handle());
    }
}

void FrameProgram::queue_stage(Stage stage) {
    if (stage == Stage::preprocess) return queue("preprocess", given_);
    if (stage == Stage::inference) return queue("inference", given_);
    if (stage == Stage::crf) return queue_crf();
    queue("check", given_);
    if (field_) {
        Given given = given_;
        given["probabilities"] = field_->probabilities();
        return queue("probabilities", given);
    }
    queue("labels", given_);
    if (wants_probabilities_) queue("probabilities", given_);
}

/// Queues a sequence, which tiled images may have no need of.
void FrameProgram::queue(const char* sequence, const Given& given) {
    const auto found = sequences_.find(sequence);
    if (found == sequences_.end()) return;
    queues_.frames.replay(found->second, memory_, given, [this](const Region& input, const Region& logits) {
        call_engine(recipe_.artifact, [&] { engine_->queue(input, logits, queues_.stream); });
    });
}

void FrameProgram::queue_crf() {
    if (!field_) return;
    queue("colors", given_);
    const bool has_colors = manifest_.input.bands.has_value();
    field_->queue_frame(has_colors ? memory_["colors"] : pictures_.region());
    if (manifest_.output.threshold) {
        Given given = given_;
        if (!wants_probabilities_) given["probabilities"] = field_->probabilities();  // no longer needed
        field_->queue_marginals(given["probabilities"]);
        queue("threshold", given);
    } else {
        field_->queue_labels(labels_.region());
        if (wants_probabilities_) field_->queue_marginals(probabilities_.region());
    }
    field_->queue_report(answer_part(offsetof(Answer, report), sizeof(FieldReport)));
}

/// Runs once on a black image, so that everything is loaded, and records the stages.
void FrameProgram::record() {
    const Stream& stream = queues_.stream;
    stream.fill(pictures_.region(), 0);
    queue_work();
    stream.synchronize();
    for (const Stage stage : kStages) {
        if (stage == Stage::preprocess && sequences_.count("preprocess") == 0) continue;
        if (stage == Stage::inference && !engine_->is_capturable()) continue;
        if (stage == Stage::crf && !field_) continue;
        graphs_[static_cast<std::size_t>(stage)] = Graph(recipe_.device, stream, [&] { queue_stage(stage); });
    }
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
    const auto label_bytes = static_cast<std::size_t>(frame.label_bytes * size_.area());
    const std::int64_t packed_bytes = std::int64_t{frame.label_bytes} * size_.width;
    const std::size_t map_bytes = probabilities_.region().bytes;
    if (!frame.on_device) {
        if (frame.has_packed_labels()) {
            stream.download(frame.labels, labels_.region(), label_bytes);
        } else {
            stream.download(sent_.data(), labels_.region(), label_bytes);  // the image is no longer needed
        }
        if (frame.probabilities != nullptr) stream.download(frame.probabilities, probabilities_.region(), map_bytes);
        stream.synchronize();
        if (!frame.has_packed_labels()) {
            copy_rows(sent_.data(), packed_bytes, frame.labels, frame.label_row_bytes, size_, frame.label_bytes);
        }
        return;
    }
    stream.copy_rows({reinterpret_cast<Address>(frame.labels), frame.label_row_bytes},
                     {labels_.region().address, packed_bytes}, {size_.height, static_cast<int>(packed_bytes)});
    if (frame.probabilities != nullptr) {
        stream.copy({reinterpret_cast<Address>(frame.probabilities), map_bytes}, probabilities_.region());
    }
    stream.synchronize();
}

void FrameProgram::add_timings(Timings& timings) const {
    for (const Stage stage : kStages) {
        if (stage == Stage::crf && !field_) continue;
        const auto index = static_cast<std::size_t>(stage);
        timings.ms[index] += marks_[index + 1].ms_since(marks_[index]);
    }
}

}  // namespace atrous::core::cuda
