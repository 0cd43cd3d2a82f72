// Mean field on the GPU: the memory of a launch plan for images of one size, and its sequences.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "crf/csrc/launch_plan.hpp"
#include "crf_params.hpp"
#include "cuda/replay.hpp"

namespace atrous::core::cuda {

using atrous::FieldReport;
using atrous::FieldSpec;

/// Allocates when made and never again.
class Field {
  public:
    /// `compatibilities` are multiplied by the weights of the kernels; none is what the
    /// parameters say: what was learned, or Potts, −1 on the diagonal. Throws CrfError
    /// where a sigma is too small or there are too many pixels, Failure(DEVICE or MEMORY).
    Field(Replayer& queue, const FieldSpec& spec, std::optional<KernelCompatibilities> compatibilities = std::nullopt);

    const FieldSpec& spec() const { return spec_; }
    /// Where probabilities [images, classes, height, width] are to be written.
    Region probabilities() const { return memory_["planes"]; }
    Region report() const { return memory_["report"]; }

    /// Queues one inference on what is in `probabilities()` and the images [images, height, width, 3].
    void queue_frame(const Region& rgb) { queue("frame", "rgb", rgb); }
    /// Labels [images, height, width] of the inference before.
    void queue_labels(const Region& target) { queue("labels", "labels", target); }
    /// Marginals of the shape of the probabilities of the inference before.
    void queue_marginals(const Region& target) { queue("marginals", "marginals", target); }
    /// A copy of the `FieldReport`.
    void queue_report(const Region& target) { queue("report", "report_copy", target); }

  private:
    void check_memory() const;
    FieldReport read_report() const;
    void queue(const char* sequence, const char* given, const Region& region) {
        queue_.replay(sequences_.at(sequence), memory_, {{given, region}});
    }

    Replayer& queue_;
    FieldSpec spec_;
    PlanMemory memory_;
    std::map<std::string, Sequence> sequences_;
};

}  // namespace atrous::core::cuda
