// Memory that stays with the process between frames: the system takes longer to make fresh pages than some of the work
// that is done on them.
#pragma once

#include <cstddef>

namespace atrous {

/// The smallest block that comes from the pool. Smaller ones are malloc's business.
constexpr std::size_t kPooledBytes = std::size_t{256} << 10;

struct PoolBytes {
    std::size_t in_use;  ///< of blocks taken and not given back
    std::size_t kept;    ///< of blocks given back, whose pages the system does not have back
    std::size_t limit;   ///< that `kept` never exceeds
};

/// A block of uninitialised memory, at the beginning of a page. Any thread may take and give, also in a forked child.
/// Throws std::bad_alloc.
void* take_pages(std::size_t bytes);
/// Gives back what take_pages(bytes) returned.
void give_pages(void* block, std::size_t bytes) noexcept;
/// Gives the system all that is kept; returns how many bytes.
std::size_t release_pages();
PoolBytes pool_bytes();

}  // namespace atrous
