// Launch plans on a GPU: their memory, and their sequences in a stream. gpu/replay.py is the same in Python.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "cuda/device.hpp"
#include "native/launch.hpp"

namespace atrous::core::cuda {

/// Memory of buffers that the caller has, by the names of a plan.
using Given = std::map<std::string, Region>;
/// Queues an inference from the network's input to its logits.
using Infer = std::function<void(const Region& input, const Region& logits)>;

/// The buffers of a plan, by name.
class PlanMemory {
  public:
    /// Memory for a plan, with the content that it starts with, except for what is given; what the plan before had
    /// under the same name and in the same size goes over. Waits until the content is there.
    void allocate(const LaunchPlan& plan, const std::shared_ptr<const Device>& device, const Stream& stream);

    Region operator[](const std::string& name) const { return buffers_.at(name).region(); }
    /// Where a slot is.
    Region locate(const Slot& slot, const Given& given = {}) const;

  private:
    std::map<std::string, Memory> buffers_;
};

/// Puts sequences of launch plans into a stream, with the kernels of one module.
class Replayer {
  public:
    Replayer(std::shared_ptr<const Device> device, const Stream& stream, const void* image)
        : device_(std::move(device)), stream_(stream), module_(device_, image) {}

    const std::shared_ptr<const Device>& device() const { return device_; }
    const Stream& stream() const { return stream_; }

    /// Queues a sequence; `infer` is the network of one that has it.
    void replay(const Sequence& sequence, const PlanMemory& memory, const Given& given = {}, const Infer& infer = {});

  private:
    void launch(const Launch& launch, const PlanMemory& memory, const Given& given);

    std::shared_ptr<const Device> device_;
    Stream stream_;
    Module module_;
    std::unordered_map<std::string, void*> functions_;
};

}  // namespace atrous::core::cuda
