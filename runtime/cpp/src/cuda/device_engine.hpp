// Engines that read and write GPU memory; runtime/backends/base.py in C++.
#pragma once

#include <memory>

#include "cuda/device.hpp"
#include "runtime/csrc/geometry.hpp"

namespace atrous::core::cuda {

/// What an engine reads and writes for one input size, packed.
struct EngineLayout {
    bool has_half_input;  ///< [3, height, width] in half precision; otherwise single
    int channels;
    Size output;  ///< logits [channels, height, width]
    bool has_half_output;
};

/// One inference at a time, for one input size.
class DeviceEngine {
  public:
    DeviceEngine() = default;
    DeviceEngine(const DeviceEngine&) = delete;
    DeviceEngine& operator=(const DeviceEngine&) = delete;
    virtual ~DeviceEngine() = default;

    /// Fixes the input size; called once. Throws Failure(ENGINE) outside of what it was built for.
    virtual EngineLayout prepare(const Size& input) = 0;
    /// Queues one inference; allocates nothing and waits for nothing. Always called with the same memory.
    virtual void queue(const Region& source, const Region& result, const Stream& stream) = 0;
    /// Whether `queue` may be recorded in a graph once it has run.
    virtual bool is_capturable() const = 0;
};

/// A loaded artifact; hands out engines to many threads.
class DeviceBackend {
  public:
    DeviceBackend() = default;
    DeviceBackend(const DeviceBackend&) = delete;
    DeviceBackend& operator=(const DeviceBackend&) = delete;
    virtual ~DeviceBackend() = default;

    /// With the device current.
    virtual std::unique_ptr<DeviceEngine> open_engine() = 0;
};

}  // namespace atrous::core::cuda
