// Aligned storage that grows and never shrinks, so that frames of one size allocate only once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace atrous {

/// Uninitialised array of trivial elements. resize() keeps nothing: it is working memory, not a container.
template <typename T>
class Buffer {
    static_assert(std::is_trivially_copyable_v<T>, "Buffer elements are never constructed or destroyed");

  public:
    Buffer() = default;
    explicit Buffer(std::size_t size) { resize(size); }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(data_, capacity_bytes()); }

    void resize(std::size_t size) {
        if (size > capacity_) {
            release(data_, capacity_bytes());
            data_ = nullptr;
            capacity_ = size_ = 0;
            data_ = static_cast<T*>(allocate(size * sizeof(T)));
            capacity_ = size;
        }
        size_ = size;
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    std::size_t size() const { return size_; }
    std::size_t capacity_bytes() const { return capacity_ * sizeof(T); }
    T& operator[](std::size_t index) { return data_[index]; }
    const T& operator[](std::size_t index) const { return data_[index]; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }

    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
    }

  private:
    static constexpr std::size_t kHugePage = std::size_t{2} << 20;

    static void* allocate(std::size_t bytes) {
#if defined(__linux__)
        if (bytes >= kHugePage) return map(bytes);
#endif
        constexpr std::size_t alignment = 64;
        void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
        if (memory == nullptr) throw std::bad_alloc();
        return memory;
    }

    static void release(T* memory, std::size_t bytes) {
#if defined(__linux__)
        if (bytes >= kHugePage) {
            munmap(memory, bytes);
            return;
        }
#endif
        (void)bytes;
        std::free(memory);
    }

#if defined(__linux__)
    /// Memory of its own, which the system has back as soon as it is released: malloc would keep most of what a
    /// construction frees, on top of what inference then takes.
    static void* map(std::size_t bytes) {
        const std::size_t room = bytes + kHugePage;
        void* const mapped = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) throw std::bad_alloc();
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        char* const low = static_cast<char*>(mapped);
        const std::size_t skipped = (kHugePage - reinterpret_cast<std::uintptr_t>(mapped) % kHugePage) % kHugePage;
        const std::size_t used = (bytes + page - 1) / page * page;
        if (skipped > 0) munmap(low, skipped);
        if (room > skipped + used) munmap(low + skipped + used, (room - skipped - used) / page * page);
        // Lattice values are visited in a scattered order: huge pages keep those visits inside the TLB. The rest after
        // the last whole one stays in small pages, of which only those in use take memory.
        madvise(low + skipped, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
        return low + skipped;
    }
#endif

    T* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace atrous
