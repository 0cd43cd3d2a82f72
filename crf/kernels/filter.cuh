// Splat and blur (Adams, Baek & Davis 2010) of rows of channels.
//
// Two storages. Rows of float hold sums, as in the paper. Rows of uint16_t hold sums divided by the vertex's mass, which
// is its sum for an image of ones: values times mass is what the paper filters, a mean of probabilities is a fraction,
// and 16 bits resolve it 16 times as finely as half precision resolves the largest. The masses change with each pass but
// not with the values, so they are computed once; then the splat's weights are divided by them, slicing multiplies by
// the last, and a pass of the blur moves a value towards its neighbours' by their share of the new mass.
//
// threadIdx.x is the vector of a row that a thread works on, so that the threads of one row read it as one piece;
// threadIdx.y is the row in the block. No thread needs another: there are no barriers.
#pragma once

#include "common.cuh"

namespace atrous {

__device__ inline int first_row() {
    return static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);
}

__device__ inline int rows_at_once() {
    return static_cast<int>(gridDim.x * blockDim.y);
}

/// values[vertex] = Σ weight · rows[pixel], by slices of kSlice entries in vertex order.
///
/// Half of the vertices have one entry and some have thousands, so work is cut by entries: a group writes the vertices
/// that end in its slice, and leaves the sum of the last one, if that goes on in the next slice, in tails[slice].
template <typename T, int width>
__device__ void splat(const SplatEntry* entries, const int32_t* slice_vertex, int slices, const T* rows, int stride,
                      T* values, float* tails, const Status* status) {
    if (failed(status)) return;
    const size_t channel = threadIdx.x * width;
    for (int slice = first_row(); slice < slices; slice += rows_at_once()) {
        size_t vertex = slice_vertex[slice];
        float sum[width] = {};
        bool open = false;
        for (int begin = slice * kSlice; begin < (slice + 1) * kSlice; begin += 4) {
            SplatEntry entry[4];
            float row[4][width];
            for (int i = 0; i < 4; ++i) {  // ask for four rows before the first is needed
                entry[i] = entries[begin + i];
                const size_t pixel = entry[i].pixel < 0 ? ~entry[i].pixel : entry[i].pixel;
                load_row(rows + pixel * stride + channel, row[i]);
            }
            for (int i = 0; i < 4; ++i) {
                for (int c = 0; c < width; ++c) sum[c] += entry[i].weight * row[i][c];
                open = entry[i].pixel >= 0;
                if (open) continue;
                store_row(sum, values + vertex * stride + channel);
                ++vertex;
                for (int c = 0; c < width; ++c) sum[c] = 0.0f;
            }
        }
        if (open) store_row(sum, tails + static_cast<size_t>(slice) * stride + channel);
    }
}

/// Adds the tails to the vertices that began in an earlier slice than they end in, first tail first.
template <typename T, int width>
__device__ void splat_tails(const int32_t* slice_vertex, const int32_t* first_entry, int slices, const float* tails,
                            int stride, T* values, const Status* status) {
    if (failed(status)) return;
    const size_t channel = threadIdx.x * width;
    for (int slice = first_row(); slice < slices; slice += rows_at_once()) {
        const size_t vertex = slice_vertex[slice];
        const int begin = first_entry[vertex];
        if (begin >= slice * kSlice || first_entry[vertex + 1] > (slice + 1) * kSlice) continue;
        float sum[width] = {};
        float row[width];
#pragma unroll 4
        for (int earlier = begin / kSlice; earlier < slice; ++earlier) {
            load_row(tails + static_cast<size_t>(earlier) * stride + channel, row);
            for (int c = 0; c < width; ++c) sum[c] += row[c];
        }
        load_row(values + vertex * stride + channel, row);
        for (int c = 0; c < width; ++c) sum[c] += row[c];
        store_row(sum, values + vertex * stride + channel);
    }
}

/// One axis: out = in + ½(next + previous); a neighbour that does not exist counts as 0.
template <typename T, int width>
__device__ void blur(const int2* neighbours, const uint32_t* vertices, const T* in, int stride, T* out,
                     const Status* status) {
    if (failed(status)) return;
    const size_t channel = threadIdx.x * width;
    const int count = static_cast<int>(*vertices);
    for (int vertex = first_row(); vertex < count; vertex += rows_at_once()) {
        const int2 link = neighbours[vertex];
        float own[width];
        float next[width] = {};
        float previous[width] = {};
        load_row(in + static_cast<size_t>(vertex) * stride + channel, own);
        if (link.x >= 0) load_row(in + static_cast<size_t>(link.x) * stride + channel, next);
        if (link.y >= 0) load_row(in + static_cast<size_t>(link.y) * stride + channel, previous);
        for (int c = 0; c < width; ++c) own[c] += 0.5f * (next[c] + previous[c]);
        store_row(own, out + static_cast<size_t>(vertex) * stride + channel);
    }
}

constexpr float kWholeShare = 65535.0f;

/// One axis on masses: `out` becomes in + ½(next + previous), and shares[vertex] what next (low half) and previous (high
/// half) have of it, as multiples of 1/65535, rounded down so that together they are at most 1.
extern "C" __global__ void crf_share_masses(const int2* neighbours, const uint32_t* vertices, const float* in,
                                            uint32_t* shares, float* out, const Status* status) {
    if (failed(status)) return;
    const int count = static_cast<int>(*vertices);
    for (int vertex = global_thread(); vertex < count; vertex += all_threads()) {
        const int2 link = neighbours[vertex];
        // Barycentric weights are rounded, so a mass of nearly nothing may have come out below.
        const float own = fmaxf(in[vertex], 0.0f);
        const float next = link.x >= 0 ? 0.5f * fmaxf(in[link.x], 0.0f) : 0.0f;
        const float previous = link.y >= 0 ? 0.5f * fmaxf(in[link.y], 0.0f) : 0.0f;
        const float mass = own + (next + previous);
        const float scale = mass > kLeastMass ? kWholeShare / mass : 0.0f;
        shares[vertex] = static_cast<uint32_t>(next * scale) | static_cast<uint32_t>(previous * scale) << 16;
        out[vertex] = mass;
    }
}

/// One axis on values that are divided by the masses.
template <int width>
__device__ void blur_fractions(const int2* neighbours, const uint32_t* shares, const uint32_t* vertices,
                               const uint16_t* in, int stride, uint16_t* out, const Status* status) {
    if (failed(status)) return;
    const size_t channel = threadIdx.x * width;
    const int count = static_cast<int>(*vertices);
    constexpr float unit = 1.0f / kWholeShare;
    for (int vertex = first_row(); vertex < count; vertex += rows_at_once()) {
        const int2 link = neighbours[vertex];
        const uint32_t share = shares[vertex];
        const float of_next = unit * static_cast<float>(share & 0xffffu);
        const float of_previous = unit * static_cast<float>(share >> 16);
        float own[width];
        float next[width] = {};
        float previous[width] = {};
        load_row(in + static_cast<size_t>(vertex) * stride + channel, own);
        if (link.x >= 0) load_row(in + static_cast<size_t>(link.x) * stride + channel, next);
        if (link.y >= 0) load_row(in + static_cast<size_t>(link.y) * stride + channel, previous);
        for (int c = 0; c < width; ++c) own[c] += of_next * (next[c] - own[c]) + of_previous * (previous[c] - own[c]);
        store_row(own, out + static_cast<size_t>(vertex) * stride + channel);
    }
}

// One set of entry points a storage: f1 is the single channel of norms and masses, u16 has a blur of its own.
#define ATROUS_SPLAT_KERNELS(suffix, T, width)                                                                       \
    extern "C" __global__ void crf_splat_##suffix(const SplatEntry* entries, const int32_t* slice_vertex, int slices, \
                                                  const T* rows, int stride, T* values, float* tails,                 \
                                                  const Status* status) {                                             \
        splat<T, width>(entries, slice_vertex, slices, rows, stride, values, tails, status);                          \
    }                                                                                                                 \
    extern "C" __global__ void crf_splat_tails_##suffix(const int32_t* slice_vertex, const int32_t* first_entry,      \
                                                        int slices, const float* tails, int stride, T* values,        \
                                                        const Status* status) {                                       \
        splat_tails<T, width>(slice_vertex, first_entry, slices, tails, stride, values, status);                      \
    }

ATROUS_SPLAT_KERNELS(f1, float, 1)
ATROUS_SPLAT_KERNELS(f32, float, 4)
ATROUS_SPLAT_KERNELS(u16, uint16_t, 8)

extern "C" __global__ void crf_blur_f1(const int2* neighbours, const uint32_t* vertices, const float* in, int stride,
                                       float* out, const Status* status) {
    blur<float, 1>(neighbours, vertices, in, stride, out, status);
}

extern "C" __global__ void crf_blur_f32(const int2* neighbours, const uint32_t* vertices, const float* in, int stride,
                                        float* out, const Status* status) {
    blur<float, 4>(neighbours, vertices, in, stride, out, status);
}

extern "C" __global__ void crf_blur_u16(const int2* neighbours, const uint32_t* shares, const uint32_t* vertices,
                                        const uint16_t* in, int stride, uint16_t* out, const Status* status) {
    blur_fractions<8>(neighbours, shares, vertices, in, stride, out, status);
}

}  // namespace atrous
