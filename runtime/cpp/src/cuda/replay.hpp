// Launch plans on a GPU: their memory, and their sequences in a stream. gpu/replay.py is the same in Python.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "crf/csrc/launch.hpp"
#include "cuda/kernel_queue.hpp"

namespace atrous::core::cuda {

/// The buffers of a plan, by name.
class PlanMemory {
  public:
    /// Memory for a plan, with the content that it starts with, except for what is given; what the plan before had
    /// under the same name and in the same size goes over. Waits until the content is there.
    void allocate(const LaunchPlan& plan, const std::shared_ptr<const Device>& device, const Stream& stream);

    Region operator[](const std::string& name) const { return buffers_.at(name).region(); }
    /// Where a slot is; `given` is the memory of buffers that the caller has.
    Region locate(const Slot& slot, const std::map<std::string, Region>& given = {}) const;

  private:
    std::map<std::string, Memory> buffers_;
};

/// Queues a sequence.
void replay(const Sequence& sequence, KernelQueue& queue, const PlanMemory& memory,
            const std::map<std::string, Region>& given = {});

}  // namespace atrous::core::cuda
