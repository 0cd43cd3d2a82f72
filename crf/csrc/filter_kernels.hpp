// The inner loops of mean-field inference.
#pragma once

#include <cstdint>
#include <type_traits>

namespace atrous {

/// Contribution of one pixel to one lattice vertex.
struct SplatEntry {
    std::int32_t pixel;
    float weight;
};

/// The vertices around each pixel, `count` a pixel, and what each has of it.
struct Corners {
    const std::int32_t* vertices;
    const float* weights;
    int count;
};

/// The vertices on both sides of one along an axis. Where there is none, the index of a row of zeros.
struct Neighbours {
    std::int32_t previous, next;
};

/// A part of 1, as a multiple of 1/65535. See Lattice for what rows of fractions hold.
using Fraction = std::uint16_t;
constexpr float kWhole = 65535.0f;

/// What the vertices on both sides of one along an axis have of its mass, rounded down.
struct Shares {
    Fraction previous, next;
};

/// How the channels of a pixel or vertex are stored: `groups` vectors of `width` values, padded with zeros.
struct ChannelLayout {
    int channels, width, groups;

    /// Vectors take 16 bytes or more, but for a single channel of floats.
    template <typename T>
    static constexpr ChannelLayout of(int count) {
        const bool is_narrow = sizeof(T) == sizeof(float) && count <= 4;
        return ChannelLayout(count, !is_narrow ? 8 : (count == 1 ? 1 : 4));
    }
    constexpr int padded() const { return groups * width; }

  private:
    constexpr ChannelLayout(int count, int vector_width)
        : channels(count), width(vector_width), groups((count + vector_width - 1) / vector_width) {}
};

/// A logit this low gives probability 0 and keeps padded channels out of every maximum and sum.
constexpr float kPaddingLogit = -1e30f;

/// Kernels on rows of padded() values, float or Fraction: the channels of one pixel or vertex. Arithmetic is on floats;
/// fractions take part as the multiples that they are.
template <typename T>
struct RowKernels {
    /// values[v] = Σ weight · rows[pixel] for the vertices from `vertex` on whose entries are [begin, end).
    /// The first entry of a vertex is stored with its pixel complemented; every vertex has an entry.
    void (*splat)(const SplatEntry* entries, std::int64_t begin, std::int64_t end, std::int64_t vertex,
                  const ChannelLayout& layout, const T* rows, T* values);

    /// One axis of the lattice blur, for vertices v in [begin, end). Of floats, out[v] = in[v] +
    /// ½(in[neighbours[v].previous] + in[neighbours[v].next]). Of fractions, the mean of the three by `shares`, which
    /// floats do not use.
    void (*blur)(const Neighbours* neighbours, const Shares* shares, std::int64_t begin, std::int64_t end,
                 const ChannelLayout& layout, const T* in, T* out);

    /// out[p - begin] += scale ∘ Σ_j weights[p][j] · values[vertices[p][j]] for pixels p in [begin, end).
    void (*slice)(const Corners& corners, const ChannelLayout& layout, const T* values, const float* scale,
                  std::int64_t begin, std::int64_t end, float* out);

    /// rows[i] = softmax(logits[i]) for `count` rows, overwriting the logits.
    void (*softmax)(float* logits, const ChannelLayout& layout, std::int64_t count, T* rows);
};

struct FilterKernels {
    RowKernels<float> sums;
    RowKernels<Fraction> fractions;

    template <typename T>
    const RowKernels<T>& rows() const {
        if constexpr (std::is_same_v<T, Fraction>) {
            return fractions;
        } else {
            return sums;
        }
    }

    /// out[i] += matrixᵀ · in[i] for `count` rows; matrix [padded, padded].
    void (*mix)(const float* in, const float* matrix, const ChannelLayout& layout, std::int64_t count, float* out);

    /// sums[from, to] += Σ_i a[i][from] · b[i][to] over `count` rows; sums [padded, padded].
    void (*add_products)(const float* a, const float* b, const ChannelLayout& layout, std::int64_t count, float* sums);

    /// values[i] = log(clip(values[i], floor, 1)) over `count` floats.
    void (*log_clipped)(float* values, std::int64_t count, float floor);
};

const FilterKernels& filter_kernels();

}  // namespace atrous
