// From a filled hash table to a lattice: numbered vertices, entries sorted by vertex, neighbours.
//
// Vertices are numbered in the order in which a scan over the corners of all points first meets them: that is the CPU
// core's order, it does not depend on which thread won a slot, and it keeps vertices of nearby pixels near in memory.
#pragma once

#include "embed.cuh"

namespace atrous {

/// flags[corner] = 1 where a corner is the first to meet its point.
extern "C" __global__ void crf_mark_first(const int32_t* slots, const uint32_t* first, int corners, uint32_t* flags,
                                          const Status* status) {
    const bool skip = failed(status);
    for (int at = global_thread(); at < corners; at += all_threads()) {
        flags[at] = !skip && first[slots[at]] == static_cast<uint32_t>(at) ? 1 : 0;
    }
}

/// Gives each point its number, the scan of the flags.
extern "C" __global__ void crf_number_vertices(const int32_t* slots, const uint32_t* first, const uint32_t* numbers,
                                               const unsigned long long* keys, int corners, int capacity,
                                               int32_t* vertex_of_slot, unsigned long long* vertex_keys,
                                               Status* status) {
    if (failed(status)) return;
    for (int at = global_thread(); at < corners; at += all_threads()) {
        const int slot = slots[at];
        if (first[slot] != static_cast<uint32_t>(at)) continue;
        if (numbers[at] >= static_cast<uint32_t>(capacity)) {
            atomicOr(&status->failures, kTableFull);
            return;
        }
        vertex_of_slot[slot] = static_cast<int32_t>(numbers[at]);
        vertex_keys[numbers[at]] = keys[slot];
    }
}

/// The vertex of each corner, also as a pair (vertex, corner) to sort.
extern "C" __global__ void crf_pair_entries(const int32_t* slots, const int32_t* vertex_of_slot, int corners,
                                            int32_t* pixel_vertices, unsigned long long* pairs, const Status* status) {
    if (failed(status)) return;
    for (int at = global_thread(); at < corners; at += all_threads()) {
        const int vertex = vertex_of_slot[slots[at]];
        pixel_vertices[at] = vertex;
        pairs[at] = (static_cast<unsigned long long>(vertex) << 32) | static_cast<uint32_t>(at);
    }
}

/// Sorted pairs → splat entries, padded with nothing to whole slices; the first entry of each vertex (and of the one
/// after the last); the vertex that each slice starts with. Ghosts, which weigh nothing, borrow the values of pixel 0.
extern "C" __global__ void crf_lay_out_entries(const unsigned long long* pairs, const float* weights, int corners,
                                               int pixels, int corners_of_pixel, SplatEntry* entries,
                                               int32_t* first_entry, int32_t* slice_vertex, const Status* status) {
    if (failed(status)) return;
    const int padded = (corners + kSlice - 1) / kSlice * kSlice;
    for (int at = global_thread(); at < padded; at += all_threads()) {
        if (at >= corners) {
            entries[at] = {0, 0.0f};
            continue;
        }
        const int vertex = static_cast<int>(pairs[at] >> 32);
        const int corner = static_cast<int>(pairs[at] & 0xffffffffu);
        const bool is_first = at == 0 || static_cast<int>(pairs[at - 1] >> 32) != vertex;
        const bool is_last = at + 1 == corners || static_cast<int>(pairs[at + 1] >> 32) != vertex;
        const int point = corner / corners_of_pixel;
        const int pixel = point < pixels ? point : 0;
        entries[at] = {is_last ? ~pixel : pixel, weights[corner]};
        if (is_first) first_entry[vertex] = at;
        if (at + 1 == corners) first_entry[vertex + 1] = corners;
        if (at % kSlice == 0) slice_vertex[at / kSlice] = vertex;
    }
}

/// neighbours[axis][vertex] = (next, previous) along the axis, from a table filled with −1.
template <int d>
__device__ void find_neighbours(const unsigned long long* vertex_keys, const uint32_t* vertices, PointTable table,
                                const int32_t* vertex_of_slot, int capacity, int2* neighbours, const Status* status) {
    if (failed(status)) return;
    const int count = static_cast<int>(*vertices);
    for (int vertex = global_thread(); vertex < count; vertex += all_threads()) {
        const uint64_t key = vertex_keys[vertex];
        for (int axis = 0; axis <= d; ++axis) {
            const int slot = table.find(PointKey<d>::next(key, axis));
            if (slot < 0) continue;
            const int next = vertex_of_slot[slot];
            int2* links = neighbours + static_cast<size_t>(axis) * capacity;
            links[vertex].x = next;
            links[next].y = vertex;  // no other vertex has this neighbour
        }
    }
}

extern "C" __global__ void crf_find_neighbours_gaussian(const unsigned long long* vertex_keys, const uint32_t* vertices,
                                                        unsigned long long* keys, int bits,
                                                        const int32_t* vertex_of_slot, int capacity, int2* neighbours,
                                                        const Status* status) {
    find_neighbours<2>(vertex_keys, vertices, {keys, nullptr, bits}, vertex_of_slot, capacity, neighbours, status);
}

extern "C" __global__ void crf_find_neighbours_bilateral(const unsigned long long* vertex_keys,
                                                         const uint32_t* vertices, unsigned long long* keys, int bits,
                                                         const int32_t* vertex_of_slot, int capacity, int2* neighbours,
                                                         const Status* status) {
    find_neighbours<5>(vertex_keys, vertices, {keys, nullptr, bits}, vertex_of_slot, capacity, neighbours, status);
}

/// norms[pixel] from s = K·1, given the filtered ones on the lattice: 1/√(s + 1e-20), or without the root.
extern "C" __global__ void crf_norms(const float* values, const int32_t* pixel_vertices, const float* weights,
                                     int pixels, int corners_of_pixel, float alpha, int take_root, float* norms,
                                     const Status* status) {
    if (failed(status)) return;
    for (int pixel = global_thread(); pixel < pixels; pixel += all_threads()) {
        float sum = 0.0f;
        for (int j = 0; j < corners_of_pixel; ++j) {
            const int at = pixel * corners_of_pixel + j;
            sum += weights[at] * values[pixel_vertices[at]];
        }
        const float response = alpha * sum + 1e-20f;
        norms[pixel] = 1.0f / (take_root != 0 ? sqrtf(response) : response);
    }
}

/// Multiplies the norms into the weights, where values enter (`before`) and where they leave (`after`).
extern "C" __global__ void crf_apply_norms(const float* norms, int corners, int pixels, int corners_of_pixel,
                                           float alpha, int before, int after, SplatEntry* entries, float* weights,
                                           const Status* status) {
    if (failed(status)) return;
    for (int at = global_thread(); at < corners; at += all_threads()) {
        const int point = at / corners_of_pixel;
        if (point < pixels) weights[at] *= after != 0 ? alpha * norms[point] : alpha;
        const int coded = entries[at].pixel;
        if (before != 0) entries[at].weight *= norms[coded < 0 ? ~coded : coded];
    }
}

/// Makes the weights those of rows of uint16_t: the splat divides by the masses that it gives (`first`), and slicing
/// multiplies by those that the blur leaves (`last`). `pairs` are those that the entries were laid out from.
extern "C" __global__ void crf_apply_masses(const unsigned long long* pairs, const int32_t* pixel_vertices,
                                            const float* first, const float* last, int corners, SplatEntry* entries,
                                            float* weights, const Status* status) {
    if (failed(status)) return;
    for (int at = global_thread(); at < corners; at += all_threads()) {
        const float mass = first[pairs[at] >> 32];
        entries[at].weight *= mass > kLeastMass ? 1.0f / mass : 0.0f;
        weights[at] *= last[pixel_vertices[at]] / kOne<uint16_t>;
    }
}

}  // namespace atrous
