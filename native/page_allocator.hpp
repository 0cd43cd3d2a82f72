// Containers whose memory stays with the process between frames.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

#include "native/page_pool.hpp"

namespace atrous {

/// Takes large blocks from the pool of pages.
template <typename T>
struct PageAllocator {
    using value_type = T;

    PageAllocator() = default;
    template <typename U>
    PageAllocator(const PageAllocator<U>&) {}

    T* allocate(std::size_t count) {
        const std::size_t bytes = count * sizeof(T);
        return static_cast<T*>(bytes >= kPooledBytes ? take_pages(bytes) : ::operator new(bytes));
    }
    void deallocate(T* block, std::size_t count) noexcept {
        const std::size_t bytes = count * sizeof(T);
        if (bytes >= kPooledBytes) {
            give_pages(block, bytes);
        } else {
            ::operator delete(block);
        }
    }

    friend bool operator==(const PageAllocator&, const PageAllocator&) { return true; }
    friend bool operator!=(const PageAllocator&, const PageAllocator&) { return false; }
};

template <typename T>
using PageVector = std::vector<T, PageAllocator<T>>;

}  // namespace atrous
