// Loops over independent pieces of work. Every output is written by exactly one piece, in an order that is fixed
// inside the piece, so results have the same bits whatever the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace atrous {

/// The number of threads to use when `requested` are asked for; 0 means every core this process may run on.
inline int resolve_threads(int requested) {
#if defined(_OPENMP)
    return requested > 0 ? requested : omp_get_num_procs();
#else
    (void)requested;
    return 1;
#endif
}

/// Calls `body(piece)` once for every piece in [0, pieces); rethrows the first exception after all have ended.
template <typename Body>
void parallel_pieces(std::int64_t pieces, int threads, const Body& body) {
    const int workers = static_cast<int>(std::min<std::int64_t>(threads, pieces));
    if (workers <= 1) {
        for (std::int64_t piece = 0; piece < pieces; ++piece) body(piece);
        return;
    }
#if defined(_OPENMP)
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1) num_threads(workers)
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
        try {
            body(piece);
        } catch (...) {
#pragma omp critical(atrous_failure)
            if (!failure) failure = std::current_exception();
        }
    }
    if (failure) std::rethrow_exception(failure);
#endif
}

/// Calls `body(begin, end)` over [0, count) in ranges of `grain`, whose borders do not depend on `threads`.
template <typename Body>
void parallel_ranges(std::int64_t count, std::int64_t grain, int threads, const Body& body) {
    parallel_pieces((count + grain - 1) / grain, threads, [&](std::int64_t piece) {
        const std::int64_t begin = piece * grain;
        body(begin, std::min(begin + grain, count));
    });
}

}  // namespace atrous
