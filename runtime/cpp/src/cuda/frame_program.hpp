// Everything that the GPU does for pictures of one size: memory, an engine, and the launches as graphs.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bundle.hpp"
#include "crf_params.hpp"
#include "cuda/crf_field.hpp"
#include "cuda/frame_queue.hpp"
#include "pipeline.hpp"

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
    KernelQueue frames, crf, convert;
};

/// Allocates when made and never again, unless a picture has more lattice vertices than any before.
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
    enum Mark { kStart, kPrepared, kInferred, kUpsampled, kRefined, kMarks };
    struct Answer {
        std::uint32_t first_bad, unused[3];
        FieldReport report;
    };

    void queue_picture(const Frame& frame);
    void queue_work(bool recorded);
    void queue_input();
    void queue_inference();
    void queue_tiles();
    void queue_postprocess();
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
    Geometry geometry_;
    std::optional<TilePlan> tiles_;
    std::unique_ptr<DeviceEngine> engine_;
    EngineLayout layout_{};
    Memory pictures_, input_, output_, blended_, constants_, answer_, labels_, probabilities_;
    HostMemory sent_, received_;
    std::optional<DeviceStretch> stretch_;
    std::optional<Field> field_;
    DeviceLogits logits_{};
    std::vector<float> tile_values_, blended_values_;
    std::vector<Event> marks_;
    Event caller_;
    Graph preprocess_, inference_, postprocess_, crf_;
};

}  // namespace atrous::core::cuda
