// One GPU: memory, streams, events, graphs and kernels, as objects that free themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "cuda/driver.hpp"
#include "runtime/csrc/geometry.hpp"

namespace atrous::core::cuda {

/// A GPU's primary context, the one that the CUDA runtime and TensorRT use.
class Device {
  public:
    /// Throws Failure(DEVICE): no driver, or no such GPU.
    explicit Device(int ordinal);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    int ordinal() const { return ordinal_; }
    const std::string& name() const { return name_; }
    int multiprocessors() const { return multiprocessors_; }
    /// "8.9"
    const std::string& compute_capability() const { return compute_capability_; }
    /// Newest CUDA that the driver serves.
    int cuda_major() const { return cuda_major_; }
    std::size_t free_bytes() const;

    /// Throws Failure(DEVICE) unless the memory is this GPU's.
    void check_owns(const void* address, const char* name) const;
    /// Throws Failure(DEVICE) unless the stream is one of this context; null, the default stream, is.
    void check_owns_stream(void* stream) const;

  private:
    friend class Current;
    int ordinal_;
    DeviceHandle handle_ = 0;
    void* context_ = nullptr;
    std::string name_, compute_capability_;
    int multiprocessors_ = 0;
    int cuda_major_ = 0;
};

/// Makes a device's context current in this thread while it lives. All else here needs one.
class Current {
  public:
    explicit Current(const Device& device);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
};

/// Part of device memory; does not own it.
struct Region {
    Address address = 0;
    std::size_t bytes = 0;

    Region part(std::size_t offset, std::size_t count) const { return {address + offset, count}; }
};

/// Device memory with undefined content, aligned to 256 bytes; pinned host memory alike.
class Memory {
  public:
    Memory() = default;
    Memory(const std::shared_ptr<const Device>& device, std::size_t bytes);
    Region region() const { return region_; }

  private:
    std::shared_ptr<void> owner_;
    Region region_;
};

class HostMemory {
  public:
    HostMemory() = default;
    HostMemory(const std::shared_ptr<const Device>& device, std::size_t bytes);
    std::uint8_t* data() const { return static_cast<std::uint8_t*>(owner_.get()); }

  private:
    std::shared_ptr<void> owner_;
};

/// Rows of bytes in device memory.
struct Rows {
    Address address;
    std::int64_t pitch_bytes;  ///< from one to the next
};

/// A queue of work, in order; independent of all others.
class Stream {
  public:
    explicit Stream(const std::shared_ptr<const Device>& device);
    void* handle() const { return owner_.get(); }
    void synchronize() const;

    void fill(const Region& region, std::uint32_t word) const;
    void copy(const Region& target, const Region& source) const;
    /// `size.height` rows of `size.width` bytes.
    void copy_rows(const Rows& target, const Rows& source, const Size& size) const;
    void upload(const Region& target, const void* source, std::size_t bytes) const;
    void download(void* target, const Region& source, std::size_t bytes) const;

  private:
    std::shared_ptr<void> owner_;
};

/// A point in a stream.
class Event {
  public:
    explicit Event(const std::shared_ptr<const Device>& device);
    void record(void* stream) const;
    void make_wait(const Stream& stream) const;
    /// Milliseconds from an earlier event; both have been reached.
    double ms_since(const Event& earlier) const;

  private:
    std::shared_ptr<void> owner_;
};

/// Work that was recorded and can be queued again.
class Graph {
  public:
    Graph() = default;
    /// Records what `queue` puts into `stream`, without running it; it allocates nothing and waits for nothing.
    Graph(const std::shared_ptr<const Device>& device, const Stream& stream, const std::function<void()>& queue);
    explicit operator bool() const { return owner_ != nullptr; }
    void replay(const Stream& stream) const;

  private:
    std::shared_ptr<void> owner_;
};

/// Loaded kernels.
class Module {
  public:
    Module(const std::shared_ptr<const Device>& device, const void* image);
    void* function(const char* name) const;

  private:
    std::shared_ptr<void> owner_;
};

}  // namespace atrous::core::cuda
