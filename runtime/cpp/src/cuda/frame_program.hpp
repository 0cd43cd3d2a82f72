// Everything that the GPU does for images of one size: memory, an engine, and the launches as graphs.
#pragma once

#include <array>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "crf_params.hpp"
#include "cuda/crf_field.hpp"
#include "cuda/device_engine.hpp"
#include "pipeline.hpp"
#include "runtime/csrc/launch_plan.hpp"

namespace atrous::core::cuda {

/// What every program of a pipeline does.
struct Recipe {
    std::shared_ptr<const Device> device;
    std::shared_ptr<const Bundle> bundle;
    std::shared_ptr<DeviceBackend> backend;
    std::string artifact;          ///< for messages
    std::optional<CrfParams> crf;  ///< none: not refined
    int crf_iterations = 0;
    bool crf_has_fractions = false;
};

/// One call's stream, with the kernels loaded for it.
struct Queues {
    explicit Queues(const std::shared_ptr<const Device>& device);
    Stream stream;
    Replayer frames, crf;
};

/// Allocates when made and never again, unless an image has more lattice vertices than any before.
class FrameProgram {
  public:
    FrameProgram(const Recipe& recipe, Queues& queues, const Size& size, bool wants_probabilities);

    /// Waits for what may still be queued after a failure, before its memory goes.
    ~FrameProgram();
    FrameProgram(const FrameProgram&) = delete;
    FrameProgram& operator=(const FrameProgram&) = delete;

    const Size& size() const { return size_; }
    bool wants_probabilities() const { return wants_probabilities_; }

    /// Segments one frame and waits for it.
    void run(const Frame& frame, Timings& timings);

  private:
    static constexpr Stage kStages[] = {Stage::preprocess, Stage::inference, Stage::postprocess, Stage::crf};
    struct Answer {
        std::uint32_t first_bad, unused[3];
        FieldReport report;
    };

    void allocate(const LaunchPlan& plan);
    void queue_picture(const Frame& frame);
    void queue_work();
    void queue_stage(Stage stage);
    void queue(const char* sequence, const Given& given);
    void queue_crf();
    void record();
    void deliver(const Frame& frame);
    void check_answer() const;
    void add_timings(Timings& timings) const;
    Region answer_part(std::size_t offset, std::size_t bytes) const { return answer_.region().part(offset, bytes); }

    const Recipe& recipe_;
    Queues& queues_;
    const Manifest& manifest_;
    Size size_;
    bool wants_probabilities_;
    std::unique_ptr<DeviceEngine> engine_;
    PlanMemory memory_;
    std::map<std::string, Sequence> sequences_;
    Memory pictures_, answer_, labels_, probabilities_;
    Given given_;  ///< these, by the names of the plan
    HostMemory sent_, received_;
    std::optional<Field> field_;
    std::vector<Event> marks_;  ///< around each stage
    Event caller_;
    std::array<Graph, std::size(kStages)> graphs_;
};

}  // namespace atrous::core::cuda
