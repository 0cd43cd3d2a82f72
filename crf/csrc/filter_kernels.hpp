// The inner loops of mean-field inference. Arrays are pixel-major or vertex-major rows of `stride` floats: the channels
// of one pixel lie side by side, so that one row is one or a few vector registers.
#pragma once

#include <cstdint>

namespace atrous {

/// Contribution of one pixel to one lattice vertex.
struct SplatEntry {
    std::int32_t pixel;
    float weight;
};

/// Floats in a row of `channels`: what a kernel can load without a remainder. Padding stays 0.
constexpr int row_stride(int channels) {
    if (channels == 1) return 1;
    return channels <= 4 ? 4 : (channels + 7) / 8 * 8;
}

/// A logit this low gives probability 0 and keeps padded channels out of every maximum and sum.
constexpr float kPaddingLogit = -1e30f;

struct FilterKernels {
    /// values[v] = Σ weight · rows[pixel] over the entries of each vertex v in [begin, end).
    void (*splat)(const std::int32_t* first_entry, const SplatEntry* entries, const float* rows, int stride,
                  std::int64_t begin, std::int64_t end, float* values);

    /// One axis of the lattice blur, in place: v' = v + ½(v₋ + v₊) along each chain in sequence[begin, end).
    /// The last vertex of a chain is stored as its complement.
    void (*blur)(const std::int32_t* sequence, std::int64_t begin, std::int64_t end, int stride, float* values);

    /// out[p - begin] += scale ∘ Σ_j weights[p][j] · values[vertices[p][j]] for pixels p in [begin, end).
    void (*slice)(const std::int32_t* vertices, const float* weights, int corners, const float* values, int stride,
                  const float* scale, std::int64_t begin, std::int64_t end, float* out);

    /// rows[i] = softmax(logits[i]) for i in [0, count); stride as in row_stride.
    void (*softmax)(const float* logits, int stride, std::int64_t count, float* rows);

    /// logits[i] = log(clip(probabilities[i], floor, 1)) in place over `count` floats.
    void (*log_clipped)(float* values, std::int64_t count, float floor);

    /// True when none of `count` floats is NaN or infinite.
    bool (*all_finite)(const float* values, std::int64_t count);
};

const FilterKernels& filter_kernels();

}  // namespace atrous
