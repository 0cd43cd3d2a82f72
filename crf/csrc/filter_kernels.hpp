// The inner loops of mean-field inference.
#pragma once

#include <cstdint>

namespace atrous {

/// Contribution of one pixel to one lattice vertex.
struct SplatEntry {
    std::int32_t pixel;
    float weight;
};

/// The vertices on both sides of one along an axis. Where there is none, the index of a row of zeros.
struct Neighbours {
    std::int32_t previous, next;
};

/// How the channels of a pixel or vertex are stored: `groups` vectors of `width` floats, padded with zeros.
struct ChannelLayout {
    int channels, width, groups;

    explicit constexpr ChannelLayout(int count)
        : channels(count), width(count == 1 ? 1 : (count <= 4 ? 4 : 8)), groups((count + width - 1) / width) {}
    constexpr int padded() const { return groups * width; }
};

/// A logit this low gives probability 0 and keeps padded channels out of every maximum and sum.
constexpr float kPaddingLogit = -1e30f;

/// Arrays are rows of padded() floats: the channels of one pixel or vertex.
struct FilterKernels {
    /// values[v] = Σ weight · rows[pixel] for the vertices from `vertex` on whose entries are [begin, end).
    /// The first entry of a vertex is stored with its pixel complemented; every vertex has an entry.
    void (*splat)(const SplatEntry* entries, std::int64_t begin, std::int64_t end, std::int64_t vertex,
                  const ChannelLayout& layout, const float* rows, float* values);

    /// One axis of the lattice blur: out[v] = in[v] + ½(in[neighbours[v].previous] + in[neighbours[v].next]) for
    /// vertices v in [begin, end).
    void (*blur)(const Neighbours* neighbours, std::int64_t begin, std::int64_t end, const ChannelLayout& layout,
                 const float* in, float* out);

    /// out[p - begin] += scale ∘ Σ_j weights[p][j] · values[vertices[p][j]] for pixels p in [begin, end).
    void (*slice)(const std::int32_t* vertices, const float* weights, int corners, const ChannelLayout& layout,
                  const float* values, const float* scale, std::int64_t begin, std::int64_t end, float* out);

    /// out[i] += matrixᵀ · in[i] for `count` rows; matrix [padded, padded].
    void (*mix)(const float* in, const float* matrix, const ChannelLayout& layout, std::int64_t count, float* out);

    /// rows[i] = softmax(logits[i]) for `count` rows.
    void (*softmax)(const float* logits, const ChannelLayout& layout, std::int64_t count, float* rows);

    /// values[i] = log(clip(values[i], floor, 1)) over `count` floats.
    void (*log_clipped)(float* values, std::int64_t count, float floor);

    /// True when none of `count` floats is NaN or infinite.
    bool (*all_finite)(const float* values, std::int64_t count);
};

const FilterKernels& filter_kernels();

}  // namespace atrous
