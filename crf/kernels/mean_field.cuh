// The mean-field update Q ← softmax(−U − Σ_k μ_k(K_k Q)) (Krähenbühl & Koltun 2011, alg. 1), and its way in and out.
#pragma once

#include "common.cuh"

namespace atrous {

/// One pairwise term, in device memory; filled by `plan_field` in crf/csrc/launch_plan.cpp.
struct Term {
    const void* values;             ///< [vertices, stride], splatted and blurred
    const int32_t* pixel_vertices;  ///< [pixels, corners]
    const float* weights;           ///< [pixels, corners], norms included
    const float* scale;             ///< [stride], what a unit of filter response adds to −U
    const float* matrix;            ///< [channels, stride], from → to; null for a diagonal compatibility
    int64_t corners;
};

static_assert(sizeof(Term) == kTermWords * sizeof(int64_t), "words only");

/// Adds weight · row of each corner of a pixel.
template <typename T, int width, int corners>
__device__ void slice_row(const Term& term, size_t pixel, int stride, int channel, float (&sum)[width]) {
    const T* values = static_cast<const T*>(term.values);
    const int count = corners > 0 ? corners : static_cast<int>(term.corners);
    for (int j = 0; j < count; ++j) {
        const size_t at = pixel * count + j;
        const float weight = term.weights[at];
        float row[width];
        load_row(values + static_cast<size_t>(term.pixel_vertices[at]) * stride + channel, row);
        for (int c = 0; c < width; ++c) sum[c] += weight * row[c];
    }
}

template <typename Combine>
__device__ float reduce_lanes(float value, Combine combine) {
    for (int distance = static_cast<int>(blockDim.x) / 2; distance > 0; distance /= 2) {
        value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
    }
    return value;
}

/// Filter responses of one pixel for one term, laid side by side in shared memory for a matrix compatibility.
template <int width>
__device__ void add_product(const float* matrix, const float* filtered, int channels, int stride, int channel,
                            float (&energy)[width]) {
    for (int from = 0; from < channels; ++from) {
        float row[width];
        load_row(matrix + static_cast<size_t>(from) * stride + channel, row);
        for (int c = 0; c < width; ++c) energy[c] += filtered[from] * row[c];
    }
}

/// Softmax of a pixel's row, of which each lane has `vectors` vectors, as multiples of `kOne<Out>`.
template <typename Out, int vectors, int width>
__device__ void softmax_of_pixel(float (&energy)[vectors][width]) {
    float largest = kPaddingLogit;
    for (int v = 0; v < vectors; ++v) {
        for (int c = 0; c < width; ++c) largest = fmaxf(largest, energy[v][c]);
    }
    largest = reduce_lanes(largest, [](float a, float b) { return fmaxf(a, b); });
    float sum = 0.0f;
    for (int v = 0; v < vectors; ++v) {
        for (int c = 0; c < width; ++c) {
            energy[v][c] = expf(energy[v][c] - largest);
            sum += energy[v][c];
        }
    }
    const float scale = kOne<Out> / reduce_lanes(sum, [](float a, float b) { return a + b; });
    for (int v = 0; v < vectors; ++v) {
        for (int c = 0; c < width; ++c) energy[v][c] *= scale;
    }
}

/// One update of all pixels. blockDim is (lanes of a pixel, pixels): a power of two up to 32, and whole warps.
/// Each lane has `vectors` vectors of the row. `out` may be `logits`: a pixel reads its own before it writes.
template <typename T, int width, int vectors, typename Out>
__device__ void step(const Term* terms, int term_count, const float* logits, int pixels, int channels, int stride,
                     Out* out, const Status* status) {
    __shared__ float shared_rows[kThreads * width * vectors];
    if (failed(status)) return;
    const int lanes = static_cast<int>(blockDim.x);
    float* filtered = shared_rows + threadIdx.y * lanes * width * vectors;
    const int step_pixels = static_cast<int>(gridDim.x * blockDim.y);
    // By whole blocks: lanes beyond the last pixel idle along, so that shuffles find their warps complete.
    for (int base = static_cast<int>(blockIdx.x * blockDim.y); base < pixels; base += step_pixels) {
        const size_t pixel = base + threadIdx.y;
        float energy[vectors][width];
        bool mine[vectors];
        int channel[vectors];
        for (int v = 0; v < vectors; ++v) {
            channel[v] = (static_cast<int>(threadIdx.x) + v * lanes) * width;
            mine[v] = pixel < static_cast<size_t>(pixels) && channel[v] < stride;
            for (int c = 0; c < width; ++c) energy[v][c] = kPaddingLogit;
            if (mine[v]) load_row(logits + pixel * stride + channel[v], energy[v]);
        }
        for (int t = 0; t < term_count; ++t) {
            const Term term = terms[t];
            for (int v = 0; v < vectors; ++v) {
                if (!mine[v]) continue;
                float sum[width] = {};
                if (term.corners == 6) {
                    slice_row<T, width, 6>(term, pixel, stride, channel[v], sum);
                } else {
                    slice_row<T, width, 3>(term, pixel, stride, channel[v], sum);
                }
                if (term.matrix != nullptr) {
                    store_row(sum, filtered + channel[v]);
                    continue;
                }
                float scale[width];
                load_row(term.scale + channel[v], scale);
                for (int c = 0; c < width; ++c) energy[v][c] += scale[c] * sum[c];
            }
            if (term.matrix == nullptr) continue;
            __syncwarp();  // the lanes of a pixel are of one warp
            for (int v = 0; v < vectors; ++v) {
                if (mine[v]) add_product(term.matrix, filtered, channels, stride, channel[v], energy[v]);
            }
            __syncwarp();
        }
        softmax_of_pixel<Out>(energy);
        for (int v = 0; v < vectors; ++v) {
            if (mine[v]) store_row(energy[v], out + pixel * stride + channel[v]);
        }
    }
}

// `step` leaves Q in the storage of the lattice; `last_step` leaves it in single precision. Two vectors a lane serve
// rows that 32 lanes do not cover.
#define ATROUS_STEP_KERNELS(suffix, T, width, vectors)                                                               \
    extern "C" __global__ void crf_step_##suffix(const Term* terms, int term_count, const float* logits, int pixels, \
                                                 int channels, int stride, T* marginals, const Status* status) {     \
        step<T, width, vectors>(terms, term_count, logits, pixels, channels, stride, marginals, status);             \
    }                                                                                                                \
    extern "C" __global__ void crf_last_step_##suffix(const Term* terms, int term_count, const float* logits,        \
                                                      int pixels, int channels, int stride, float* marginals,        \
                                                      const Status* status) {                                        \
        step<T, width, vectors>(terms, term_count, logits, pixels, channels, stride, marginals, status);             \
    }

ATROUS_STEP_KERNELS(f32, float, 4, 1)
ATROUS_STEP_KERNELS(f32_wide, float, 4, 2)
ATROUS_STEP_KERNELS(u16, uint16_t, 8, 1)

/// −U = log(clip(p, floor, 1)) · scale: planes [images, channels, area] → rows [images · area, stride]. Blocks are 32 ×
/// 8; one makes tiles of 32 pixels by 32 channels.
extern "C" __global__ void crf_read_probabilities(const float* planes, int images, int channels, int area, int stride,
                                                  float floor, float scale, float* logits, Status* status) {
    __shared__ float tile[kPlaneTile][kPlaneTile + 1];  // +1: columns of one bank otherwise
    const int tiles = (area + kPlaneTile - 1) / kPlaneTile;
    for (int job = static_cast<int>(blockIdx.x); job < tiles * images; job += static_cast<int>(gridDim.x)) {
        const int image = job / tiles;
        const int begin = job % tiles * kPlaneTile;
        for (int group = 0; group < stride; group += kPlaneTile) {
            for (int row = static_cast<int>(threadIdx.y); row < kPlaneTile; row += static_cast<int>(blockDim.y)) {
                const int channel = group + row;
                const int pixel = begin + static_cast<int>(threadIdx.x);
                float logit = kPaddingLogit;
                if (channel < channels && pixel < area) {
                    const size_t at = (static_cast<size_t>(image) * channels + channel) * area + pixel;
                    const float p = planes[at];
                    if (!isfinite(p)) {
                        atomicOr(&status->failures, kNotFinite);
                        atomicMin(&status->first_bad, static_cast<uint32_t>(at));
                    } else if (p < 0.0f || p > 1.0f + 1e-3f) {
                        atomicOr(&status->failures, kNotProbability);
                    }
                    logit = logf(fminf(fmaxf(p, floor), 1.0f)) * scale;
                }
                tile[row][threadIdx.x] = logit;
            }
            __syncthreads();
            for (int row = static_cast<int>(threadIdx.y); row < kPlaneTile; row += static_cast<int>(blockDim.y)) {
                const int channel = group + static_cast<int>(threadIdx.x);
                const size_t pixel = static_cast<size_t>(image) * area + begin + row;
                if (channel < stride && begin + row < area) logits[pixel * stride + channel] = tile[threadIdx.x][row];
            }
            __syncthreads();
        }
    }
}

/// Rows → planes, the inverse of the above without the logarithm.
extern "C" __global__ void crf_write_marginals(const float* rows, int images, int channels, int area, int stride,
                                               float* planes, const Status* status) {
    __shared__ float tile[kPlaneTile][kPlaneTile + 1];
    if (failed(status)) return;
    const int tiles = (area + kPlaneTile - 1) / kPlaneTile;
    for (int job = static_cast<int>(blockIdx.x); job < tiles * images; job += static_cast<int>(gridDim.x)) {
        const int image = job / tiles;
        const int begin = job % tiles * kPlaneTile;
        for (int group = 0; group < channels; group += kPlaneTile) {
            for (int row = static_cast<int>(threadIdx.y); row < kPlaneTile; row += static_cast<int>(blockDim.y)) {
                const int channel = group + static_cast<int>(threadIdx.x);
                const size_t pixel = static_cast<size_t>(image) * area + begin + row;
                if (channel < channels && begin + row < area) tile[row][threadIdx.x] = rows[pixel * stride + channel];
            }
            __syncthreads();
            for (int row = static_cast<int>(threadIdx.y); row < kPlaneTile; row += static_cast<int>(blockDim.y)) {
                const int channel = group + row;
                const int pixel = begin + static_cast<int>(threadIdx.x);
                if (channel < channels && pixel < area) {
                    planes[(static_cast<size_t>(image) * channels + channel) * area + pixel] = tile[threadIdx.x][row];
                }
            }
            __syncthreads();
        }
    }
}

/// The channel of the largest marginal; of equals, the lowest.
extern "C" __global__ void crf_write_labels(const float* rows, int pixels, int channels, int stride, uint8_t* labels,
                                            const Status* status) {
    if (failed(status)) return;
    for (int pixel = global_thread(); pixel < pixels; pixel += all_threads()) {
        const float* row = rows + static_cast<size_t>(pixel) * stride;
        int best = 0;
        for (int c = 1; c < channels; ++c) best = row[c] > row[best] ? c : best;
        labels[pixel] = static_cast<uint8_t>(best);
    }
}

}  // namespace atrous
