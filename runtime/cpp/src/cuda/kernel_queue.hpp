// Launch shapes and arguments, as in gpu/queue.py.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>

#include "crf/csrc/launch.hpp"
#include "cuda/device.hpp"

namespace atrous::core::cuda {

/// A kernel's arguments, packed like the members of a struct.
class PackedArguments {
  public:
    void put(const Region& region) { add(region.address); }
    void put(std::int32_t value) { add(value); }
    void put(std::int64_t value) { add(value); }
    void put(float value) { add(value); }

    void* data() { return bytes_.data(); }
    std::size_t* size() { return &size_; }

  private:
    template <typename Value>
    void add(const Value& value) {
        size_ = (size_ + sizeof(Value) - 1) / sizeof(Value) * sizeof(Value);
        std::memcpy(bytes_.data() + size_, &value, sizeof(Value));
        size_ += sizeof(Value);
    }

    alignas(8) std::array<char, 256> bytes_;
    std::size_t size_ = 0;
};

/// Puts kernels of one module into a stream.
class KernelQueue {
  public:
    KernelQueue(std::shared_ptr<const Device> device, const Stream& stream, const void* image)
        : device_(std::move(device)), stream_(stream), module_(device_, image) {}

    const std::shared_ptr<const Device>& device() const { return device_; }
    const Stream& stream() const { return stream_; }

    /// One thread for each of `count` items.
    template <typename... Values>
    void each(const char* kernel, std::int64_t count, const Values&... values) {
        const std::int64_t most = std::int64_t{device_->multiprocessors()} * kBlocksPerMultiprocessor;
        PackedArguments arguments;
        (arguments.put(values), ...);
        launch(kernel, std::min(ceil_div(count, kThreads), most), kThreads, 1, arguments);
    }

    void launch(const char* kernel, std::int64_t blocks, int width, int height, PackedArguments& arguments) {
        // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END
        void* extra[] = {reinterpret_cast<void*>(1), arguments.data(), reinterpret_cast<void*>(2), arguments.size(),
                         nullptr};
        check(
            driver().cuLaunchKernel(function(kernel), static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(width),
                                    static_cast<unsigned>(height), 1, 0, stream_.handle(), nullptr, extra),
            kernel);
    }

  private:
    void* function(const char* kernel) {
        const auto known = functions_.find(kernel);
        if (known != functions_.end()) return known->second;
        return functions_.emplace(kernel, module_.function(kernel)).first->second;
    }

    std::shared_ptr<const Device> device_;
    Stream stream_;
    Module module_;
    std::unordered_map<std::string, void*> functions_;
};

}  // namespace atrous::core::cuda
