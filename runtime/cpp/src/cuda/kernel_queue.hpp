// Launch shapes and arguments, as in gpu/queue.py.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>

#include "cuda/device.hpp"

namespace atrous::core::cuda {

/// Of every block; kThreads in the kernels.
constexpr int kThreads = 256;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

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
        launch(kernel, std::min(ceil_div(count, kThreads), most_blocks()), kThreads, 1, values...);
    }

    /// Exactly `blocks` blocks of `width` × `height` threads.
    template <typename... Values>
    void tiles(const char* kernel, std::int64_t blocks, int width, int height, const Values&... values) {
        launch(kernel, blocks, width, height, values...);
    }

    /// `lanes` threads side by side for each of `count` rows.
    template <typename... Values>
    void rows(const char* kernel, std::int64_t count, int lanes, const Values&... values) {
        const int rows_of_block = kThreads / lanes;
        launch(kernel, std::min(ceil_div(count, rows_of_block), most_blocks()), lanes, rows_of_block, values...);
    }

  private:
    /// Enough to keep a multiprocessor busy to the end; kernels loop over what is more.
    static constexpr std::int64_t kBlocksPerMultiprocessor = 16;

    /// Values packed like the members of a struct.
    struct Packed {
        alignas(8) std::array<char, 256> bytes;
        std::size_t size = 0;

        template <typename Value>
        void add(const Value& value) {
            size = (size + sizeof(Value) - 1) / sizeof(Value) * sizeof(Value);
            std::memcpy(bytes.data() + size, &value, sizeof(Value));
            size += sizeof(Value);
        }
        void put(const Region& region) { add(region.address); }
        void put(std::int32_t value) { add(value); }
        void put(std::int64_t value) { add(value); }
        void put(float value) { add(value); }
    };

    std::int64_t most_blocks() const { return device_->multiprocessors() * kBlocksPerMultiprocessor; }

    template <typename... Values>
    void launch(const char* kernel, std::int64_t blocks, int width, int height, const Values&... values) {
        static_assert(8 * sizeof...(values) <= sizeof(Packed::bytes), "arguments fit");
        Packed packed;
        (packed.put(values), ...);
        // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END
        void* extra[] = {reinterpret_cast<void*>(1), packed.bytes.data(), reinterpret_cast<void*>(2), &packed.size,
                         nullptr};
        check(
            driver().cuLaunchKernel(function(kernel), static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(width),
                                    static_cast<unsigned>(height), 1, 0, stream_.handle(), nullptr, extra),
            kernel);
    }

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
