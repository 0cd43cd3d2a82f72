#include "cuda/device_pipeline.hpp"

#include <list>
#include <utility>

#include "cuda/frame_program.hpp"
#include "failure.hpp"
#include "lanes.hpp"

namespace atrous::core::cuda {
namespace {

/// Programs kept by a lane; a video needs one, and each takes GPU memory.
constexpr std::size_t kMaxPrograms = 2;

/// What one call needs for itself.
class Lane {
  public:
    explicit Lane(const Recipe& recipe) : recipe_(recipe), queues_(recipe.device) {}

    void run(const Frame& frame, Timings& timings) {
        const bool wants_probabilities = frame.probabilities != nullptr;
        for (auto program = programs_.begin(); program != programs_.end(); ++program) {
            if (program->size() != frame.size || program->wants_probabilities() != wants_probabilities) continue;
            programs_.splice(programs_.begin(), programs_, program);
            programs_.front().run(frame, timings);
            return;
        }
        if (programs_.size() == kMaxPrograms) programs_.pop_back();
        programs_.emplace_front(recipe_, queues_, frame.size, wants_probabilities);
        programs_.front().run(frame, timings);
    }

  private:
    const Recipe& recipe_;
    Queues queues_;
    std::list<FrameProgram> programs_;  ///< last used first
};

class DevicePipeline : public Pipeline {
  public:
    explicit DevicePipeline(Recipe recipe)
        : recipe_(std::move(recipe)), lanes_([this] { return std::make_unique<Lane>(recipe_); }) {}

    void run(const Frame& frame, Timings& timings) override {
        check_frame(frame, recipe_.bundle->manifest());
        const Current current(*recipe_.device);
        lanes_.use([&](Lane& lane) { lane.run(frame, timings); });
    }

  private:
    Recipe recipe_;
    Lanes<Lane> lanes_;
};

}  // namespace

std::unique_ptr<Pipeline> make_device_pipeline(std::shared_ptr<const Device> device,
                                               std::shared_ptr<const Bundle> bundle,
                                               std::shared_ptr<DeviceBackend> backend, const Options& options,
                                               Description description) {
    Recipe recipe{std::move(device), std::move(bundle), std::move(backend), description.artifact, {}, 0, false};
    if (options.has_crf) {
        recipe.crf = crf_params_of(recipe.bundle->manifest());
        recipe.crf_iterations = crf_iterations_of(recipe.bundle->manifest(), options.crf_iterations);
        recipe.crf_has_fractions = options.crf_has_fractions;
    }
    auto pipeline = std::make_unique<DevicePipeline>(std::move(recipe));
    pipeline->description = std::move(description);
    return pipeline;
}

}  // namespace atrous::core::cuda
