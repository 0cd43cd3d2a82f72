#include "page_pool.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace atrous {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

/// Address space that is asked for at once. It costs nothing until it is written to.
constexpr std::size_t kRegion = std::size_t{1} << 30;

/// What is kept at most, and at most this part of the machine's memory.
constexpr std::size_t kMostKept = std::size_t{2} << 30;
constexpr std::size_t kPartKept = 8;

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

#if defined(__linux__)

/// A set of addresses, as ranges that do not touch each other.
class AddressSet {
  public:
    std::size_t bytes() const { return bytes_; }
    const std::map<char*, std::size_t>& ranges() const { return ranges_; }

    /// Adds a range of which nothing is in the set.
    void add(char* begin, std::size_t size) {
        const auto next = ranges_.lower_bound(begin);
        const bool reaches_next = next != ranges_.end() && begin + size == next->first;
        const std::size_t joined = size + (reaches_next ? next->second : 0);
        const auto previous = next == ranges_.begin() ? ranges_.end() : std::prev(next);
        if (previous != ranges_.end() && previous->first + previous->second == begin) {
            previous->second += joined;
        } else {
            ranges_.emplace_hint(next, begin, joined);
        }
        if (reaches_next) ranges_.erase(next);
        bytes_ += size;
    }

    /// Removes what the set has of a range.
    void remove(char* begin, std::size_t size) {
        char* const end = begin + size;
        auto range = ranges_.upper_bound(begin);
        if (range != ranges_.begin()) --range;
        while (range != ranges_.end() && range->first < end) {
            const auto [low, length] = *range;
            char* const high = low + length;
            if (high <= begin) {
                ++range;
                continue;
            }
            if (high > end) ranges_.emplace(end, static_cast<std::size_t>(high - end));
            if (low < begin) {
                range->second = static_cast<std::size_t>(begin - low);
                ++range;
            } else {
                range = ranges_.erase(range);
            }
            bytes_ -= static_cast<std::size_t>(std::min(high, end) - std::max(low, begin));
        }
    }

  private:
    std::map<char*, std::size_t> ranges_;
    std::size_t bytes_ = 0;
};

/// Address space in use and not. A block comes from the lowest free range that has room: what one phase of a frame
/// gives back, in whatever sizes, the next one takes, and the process does not grow beyond what is used at once.
class PagePool {
  public:
    PagePool()
        : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))),
          limit_(std::min(kMostKept, page_ * static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) / kPartKept)) {}

    void* take(std::size_t bytes) {
        const std::size_t size = round_up(bytes, page_);
        const std::lock_guard<std::mutex> lock(mutex_);
        char* block = find(size);
        if (block == nullptr) {
            add_region(size);
            block = find(size);
        }
        free_.remove(block, size);
        blank_.remove(block, size);
        in_use_ += size;
        return block;
    }

    void give(char* block, std::size_t bytes) noexcept {
        const std::size_t size = round_up(bytes, page_);
        const std::lock_guard<std::mutex> lock(mutex_);
        in_use_ -= size;
        try {
            free_.add(block, size);
            if (kept() > limit_) trim(limit_);
        } catch (const std::bad_alloc&) {  // no memory for a note of it: the address space is lost, the pages are not
            madvise(block, size, MADV_DONTNEED);
        }
    }

    std::size_t release() {
        const std::lock_guard<std::mutex> lock(mutex_);
        const std::size_t before = kept();
        trim(0);
        return before - kept();
    }

    PoolBytes bytes() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return {in_use_, kept(), limit_};
    }

    std::mutex& mutex() { return mutex_; }

  private:
    std::size_t kept() const { return free_.bytes() - blank_.bytes(); }

    char* find(std::size_t bytes) const {
        for (const auto& [begin, size] : free_.ranges()) {
            if (size >= bytes) return begin;
        }
        return nullptr;
    }

    void add_region(std::size_t needed) {
        for (const std::size_t bytes : {std::max(kRegion, round_up(needed, kHugePage)), needed}) {
            constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
            void* const region = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
            if (region == MAP_FAILED) continue;  // where address space is limited: no more than needed
            // Lattice values are visited in a scattered order: huge pages keep those visits inside the TLB.
            madvise(region, bytes, MADV_HUGEPAGE);
            free_.add(static_cast<char*>(region), bytes);
            blank_.add(static_cast<char*>(region), bytes);
            return;
        }
        throw std::bad_alloc();
    }

    /// Gives pages back, from the highest address down, until no more than `most` bytes are kept.
    void trim(std::size_t most) {
        for (auto range = free_.ranges().rbegin(); range != free_.ranges().rend() && kept() > most; ++range) {
            const auto [begin, size] = *range;
            madvise(begin, size, MADV_DONTNEED);
            blank_.remove(begin, size);
            blank_.add(begin, size);
        }
    }

    const std::size_t page_, limit_;
    std::mutex mutex_;
    AddressSet free_;
    AddressSet blank_;  ///< the part of it that has no pages
    std::size_t in_use_ = 0;
};

PagePool& pool() {
    static PagePool* const instance = [] {
        auto* const made = new PagePool;  // never destroyed: arrays of Python may outlive static destruction
        // A child must not inherit the lock from a thread that it does not have.
        pthread_atfork([] { pool().mutex().lock(); }, [] { pool().mutex().unlock(); }, [] { pool().mutex().unlock(); });
        return made;
    }();
    return *instance;
}

#endif

}  // namespace

#if defined(__linux__)

void* take_pages(std::size_t bytes) {
    return pool().take(bytes);
}

void give_pages(void* block, std::size_t bytes) noexcept {
    pool().give(static_cast<char*>(block), bytes);
}

std::size_t release_pages() {
    return pool().release();
}

PoolBytes pool_bytes() {
    return pool().bytes();
}

#else  // elsewhere the system's allocator

void* take_pages(std::size_t bytes) {
    void* const block = std::aligned_alloc(kHugePage, round_up(bytes, kHugePage));
    if (block == nullptr) throw std::bad_alloc();
    return block;
}

void give_pages(void* block, std::size_t) noexcept {
    std::free(block);
}

std::size_t release_pages() {
    return 0;
}

PoolBytes pool_bytes() {
    return {0, 0, 0};
}

#endif

}  // namespace atrous
