// Aligned storage that grows and never shrinks, so that frames of one size allocate only once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#include "native/page_pool.hpp"

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
    static void* allocate(std::size_t bytes) {
        if (bytes >= kPooledBytes) return take_pages(bytes);
        constexpr std::size_t alignment = 64;
        void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
        if (memory == nullptr) throw std::bad_alloc();
        return memory;
    }

    static void release(T* memory, std::size_t bytes) {
        if (bytes >= kPooledBytes) {
            give_pages(memory, bytes);
        } else {
            std::free(memory);
        }
    }

    T* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace atrous
