// Loops over independent pieces of work. Every output is written by exactly one piece, in an order that is fixed
// inside the piece, so results have the same bits whatever the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace atrous {

/// The number of threads to use when `requested` are asked for; 0 means every core this process may run on.
int resolve_threads(int requested);

/// Calls `body(piece)` once for every piece in [0, pieces), on up to `threads` threads of which the caller is one.
/// Rethrows one of the exceptions, if any, after all pieces have ended. May be called from several threads at once.
///
/// Returns when the pieces are done, not when all threads have arrived: a helper that the system has not scheduled yet
/// delays nobody, which matters on a busy machine and beside inference engines with threads of their own. (An OpenMP
/// loop waits for its whole team; with another program on both of two cores it ran slower than a single thread.)
void parallel_pieces(std::int64_t pieces, int threads, const std::function<void(std::int64_t)>& body);

/// Calls `body(begin, end)` over [0, count) in ranges of `grain`, whose borders do not depend on `threads`.
template <typename Body>
void parallel_ranges(std::int64_t count, std::int64_t grain, int threads, const Body& body) {
    parallel_pieces((count + grain - 1) / grain, threads, [&](std::int64_t piece) {
        const std::int64_t begin = piece * grain;
        body(begin, std::min(begin + grain, count));
    });
}

}  // namespace atrous
