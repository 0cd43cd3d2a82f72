#include "cpu_pipeline.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpu_crf.hpp"
#include "engine_guard.hpp"
#include "failure.hpp"
#include "lanes.hpp"
#include "native/finite.hpp"
#include "native/parallel.hpp"
#include "runtime/csrc/channels.hpp"
#include "runtime/csrc/image.hpp"
#include "runtime/csrc/resample.hpp"
#include "runtime/csrc/resize.hpp"
#include "runtime/csrc/tiling.hpp"

namespace atrous::core {
namespace {

/// An image, or a tile of one, on the host.
struct Picture {
    const std::uint8_t* pixels;  ///< of the network's format
    Size size;
    std::int64_t row_bytes;
    bool is_bgr;
};

/// What one call needs for itself.
struct Lane {
    std::unique_ptr<Session> session;
    std::optional<CpuCrf> crf;
    std::vector<std::uint8_t> resized, rgb, labels;
    std::vector<float> blended, scores, probabilities;
};

class CpuPipeline : public Pipeline {
  public:
    CpuPipeline(std::shared_ptr<const Bundle> bundle, std::unique_ptr<Engine> engine, const Options& options)
        : bundle_(std::move(bundle)),
          manifest_(bundle_->manifest()),
          engine_(std::move(engine)),
          channels_(manifest_.channels()),
          threads_(resolve_threads(options.threads)),
          crf_has_fractions_(options.crf_has_fractions),
          crf_class_floor_(options.crf_class_floor),
          lanes_([this] { return make_lane(); }) {
        if (!options.has_crf) return;
        crf_params_ = crf_params_of(manifest_);
        crf_iterations_ = crf_iterations_of(manifest_, options.crf_iterations);
        CpuCrf::check_floor(*crf_params_, options.crf_class_floor);
    }

    void run(const Frame& frame, Timings& timings) override {
        if (frame.on_device) {
            fail(ATROUS_ERROR_UNAVAILABLE, "the ", description.backend,
                 " backend reads host memory; memory of a GPU needs the tensorrt backend");
        }
        check_frame(frame, manifest_);
        lanes_.use([&](Lane& lane) {
            Geometry geometry = plan_geometry(frame.size, manifest_.input.size, manifest_.input.resize);
            const Picture picture{frame.pixels, frame.size, frame.row_bytes, frame.is_bgr};
            Logits logits;
            if (needs_tiles(geometry, manifest_.input.size)) {
                const TilePlan plan = plan_tiles(geometry, manifest_.input.size, manifest_.output.stride);
                logits = infer_tiles(lane, picture, plan, timings);
                geometry.input = plan.full;
            } else {
                logits = infer(lane, picture, geometry.input, timings);
            }
            check_logits(logits);
            if (crf_params_) {
                refine(lane, frame, logits, geometry, timings);
            } else {
                upsample(lane, frame, logits, geometry, timings);
            }
        });
    }

  private:
    std::unique_ptr<Lane> make_lane() {
        auto lane = std::make_unique<Lane>();
        lane->session = call_engine(engine_name(), [&] { return engine_->make_session(); });
        if (crf_params_) {
            lane->crf.emplace(*crf_params_, crf_iterations_, threads_, crf_has_fractions_, crf_class_floor_);
        }
        return lane;
    }

    std::string engine_name() const { return description.backend + " in " + description.artifact; }

    Logits infer(Lane& lane, Picture picture, const Size& input, Timings& timings) {
        float* prepared = nullptr;
        {
            const StageClock clock(timings, Stage::inference);  // a new size may have to be compiled
            prepared = call_engine(engine_name(), [&] { return lane.session->input(input); });
        }
        {
            const StageClock clock(timings, Stage::preprocess);
            const Window window = place_image(picture.size, input, manifest_.input.resize);
            if (picture.size != window.size) {
                const PixelFormat format = manifest_.input.format();
                lane.resized.resize(static_cast<std::size_t>(format.bytes() * window.size.area()));
                resize_pixels(picture.pixels, format, picture.size, picture.row_bytes, window.size, threads_,
                              lane.resized.data());
                picture = {lane.resized.data(), window.size, std::int64_t{format.bytes()} * window.size.width,
                           picture.is_bgr};
            }
            normalize_image(picture.pixels, window, picture.row_bytes, manifest_.input.scaling(picture.is_bgr), input,
                            threads_, prepared);
        }
        const StageClock clock(timings, Stage::inference);
        return call_engine(engine_name(), [&] { return lane.session->run(); });
    }

    Logits infer_tiles(Lane& lane, const Picture& picture, const TilePlan& plan, Timings& timings) {
        const std::int64_t pixel_bytes = manifest_.input.format().bytes();
        const auto one = [&](int top, int left) {
            // Tiles may reach beyond the image, even begin there: what is missing is padding.
            const int height = std::clamp(picture.size.height - top, 0, plan.tile.height);
            const int width = std::clamp(picture.size.width - left, 0, plan.tile.width);
            const bool is_empty = height == 0 || width == 0;
            const std::uint8_t* corner =
                is_empty ? picture.pixels : picture.pixels + top * picture.row_bytes + pixel_bytes * left;
            return infer(lane, {corner, {height, width}, picture.row_bytes, picture.is_bgr}, plan.tile, timings);
        };
        return blend_tiles(plan, one, lane.blended);
    }

    void check_logits(const Logits& logits) const {
        if (logits.channels != channels_) {
            fail(ATROUS_ERROR_ENGINE, description.artifact, " gives ", logits.channels, " channels; the manifest says ",
                 channels_);
        }
        if (logits.size.height < 1 || logits.size.width < 1) {
            fail(ATROUS_ERROR_ENGINE, description.artifact, " gives no logits");
        }
        if (!all_finite(logits.values, static_cast<std::int64_t>(logits.count()))) {
            fail(ATROUS_ERROR_ENGINE, description.artifact,
                 " gives logits that are not finite; overflow in half precision is a common cause");
        }
    }

    ResampleShape shape_of(const Logits& logits, const Geometry& geometry) const {
        return {logits.channels, logits.size, geometry.image,
                plan_sampling(geometry, logits.size, manifest_.output.align_corners)};
    }

    /// Logits of all classes: one channel gets the one that it is compared with in front.
    Logits class_logits(Lane& lane, const Logits& logits, float background) const {
        if (!manifest_.output.threshold) return logits;
        lane.scores.resize(2 * logits.count());
        add_background(logits.values, static_cast<std::int64_t>(logits.count()), background, lane.scores.data());
        Logits scores = logits;
        scores.values = lane.scores.data();
        scores.channels = 2;
        return scores;
    }

    /// Where packed labels go: to the caller's memory, or to the lane's where the caller's rows are further apart.
    static std::uint8_t* packed_labels(Lane& lane, const Frame& frame) {
        if (frame.has_packed_labels()) return frame.labels;
        lane.labels.resize(static_cast<std::size_t>(frame.label_bytes * frame.size.area()));
        return lane.labels.data();
    }

    static void deliver_labels(const Lane& lane, const Frame& frame) {
        if (frame.has_packed_labels()) return;
        const auto packed = static_cast<std::size_t>(frame.label_bytes) * frame.size.width;
        for (int y = 0; y < frame.size.height; ++y) {
            std::memcpy(frame.labels + y * frame.label_row_bytes, lane.labels.data() + y * packed, packed);
        }
    }

    void upsample(Lane& lane, const Frame& frame, const Logits& logits, const Geometry& geometry, Timings& timings) {
        const StageClock clock(timings, Stage::postprocess);
        const std::optional<double>& threshold = manifest_.output.threshold;
        const Logits compared = class_logits(lane, logits, threshold ? threshold_logit(*threshold) : 0.0f);
        const ResampleShape shape = shape_of(compared, geometry);
        std::uint8_t* const labels = packed_labels(lane, frame);
        if (frame.label_bytes == 2) {
            resample_labels(compared.values, shape, threads_, reinterpret_cast<std::uint16_t*>(labels));
        } else {
            resample_labels(compared.values, shape, threads_, labels);
        }
        deliver_labels(lane, frame);
        if (frame.probabilities == nullptr) return;
        const Logits activated = class_logits(lane, logits, 0.0f);
        resample_probabilities(activated.values, shape, threads_, frame.probabilities);
    }

    void refine(Lane& lane, const Frame& frame, const Logits& coarse, const Geometry& geometry, Timings& timings) {
        const Logits logits = class_logits(lane, coarse, 0.0f);
        float* probabilities = frame.probabilities;
        {
            const StageClock clock(timings, Stage::postprocess);
            if (probabilities == nullptr) {
                const auto pixels = static_cast<std::size_t>(frame.size.height) * frame.size.width;
                lane.probabilities.resize(pixels * static_cast<std::size_t>(logits.channels));
                probabilities = lane.probabilities.data();
            }
            resample_probabilities(logits.values, shape_of(logits, geometry), threads_, probabilities);
        }
        const StageClock clock(timings, Stage::crf);
        const std::optional<double>& threshold = manifest_.output.threshold;
        std::uint8_t* labels = packed_labels(lane, frame);
        lane.crf->refine(probabilities, logits.channels, colors_of(lane, frame), frame.size, labels,
                         threshold ? probabilities : frame.probabilities);
        if (threshold) apply_threshold(probabilities, frame.size.area(), static_cast<float>(*threshold), labels);
        deliver_labels(lane, frame);
    }

    /// What the CRF compares: [height, width, 3] without gaps, the image itself in RGB or colours of its bands.
    const std::uint8_t* colors_of(Lane& lane, const Frame& frame) const {
        const std::optional<BandColors> colors = manifest_.input.crf_colors();
        if (!colors) return packed_rgb(lane, frame);
        lane.rgb.resize(static_cast<std::size_t>(3 * frame.size.area()));
        color_bands(frame.pixels, frame.size, frame.row_bytes, *colors, threads_, lane.rgb.data());
        return lane.rgb.data();
    }

    /// The image as [height, width, 3] RGB without gaps.
    static const std::uint8_t* packed_rgb(Lane& lane, const Frame& frame) {
        const std::int64_t packed = std::int64_t{3} * frame.size.width;
        if (!frame.is_bgr && frame.row_bytes == packed) return frame.pixels;
        lane.rgb.resize(static_cast<std::size_t>(packed) * frame.size.height);
        for (int y = 0; y < frame.size.height; ++y) {
            const std::uint8_t* from = frame.pixels + y * frame.row_bytes;
            std::uint8_t* to = lane.rgb.data() + y * packed;
            std::memcpy(to, from, static_cast<std::size_t>(packed));
            if (!frame.is_bgr) continue;
            for (std::int64_t x = 0; x < packed; x += 3) std::swap(to[x], to[x + 2]);
        }
        return lane.rgb.data();
    }

    std::shared_ptr<const Bundle> bundle_;
    const Manifest& manifest_;
    std::unique_ptr<Engine> engine_;
    int channels_;
    int threads_;
    int crf_iterations_ = 0;
    bool crf_has_fractions_;
    float crf_class_floor_;
    std::optional<CrfParams> crf_params_;  ///< none: not refined
    Lanes<Lane> lanes_;
};

}  // namespace

std::unique_ptr<Pipeline> make_cpu_pipeline(std::shared_ptr<const Bundle> bundle, std::unique_ptr<Engine> engine,
                                            const Options& options, Description description) {
    auto pipeline = std::make_unique<CpuPipeline>(std::move(bundle), std::move(engine), options);
    pipeline->description = std::move(description);
    return pipeline;
}

}  // namespace atrous::core
