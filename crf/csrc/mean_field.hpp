// Mean-field inference in a fully connected CRF (Krähenbühl & Koltun 2011).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "buffer.hpp"
#include "lattice.hpp"

namespace atrous {

/// Where the filter response is divided by s = K·1 (self term included).
enum class Normalization { none, before, after, symmetric };

/// A normalised Gaussian kernel over the pixels: K̂ = diag(after) · K · diag(before).
class Filter {
  public:
    /// Builds the kernel; a second call reuses the memory of the first's lattice.
    void build(const FeatureSource& source, Normalization normalization, int threads);
    const Lattice& lattice() const { return lattice_; }

  private:
    Lattice lattice_;
};

/// μ: how labels interact. Either a factor a channel (Potts: −w for all) or a symmetric matrix.
struct Compatibility {
    std::vector<float> diagonal;  ///< [channels], or empty
    std::vector<float> matrix;    ///< [channels, channels], used when diagonal is empty
};

/// Q ← softmax(−U − Σ_k μ_k(K̂_k Q)), all buffers allocated once. Not to be used from two threads at once.
class MeanField {
  public:
    MeanField(std::int64_t pixels, int channels, int threads);

    std::int64_t pixels() const { return pixels_; }
    int channels() const { return layout_.channels; }

    /// Unary energies U, planar [channels, pixels]. False, leaving them unusable, when one is not finite.
    bool set_unary(const float* planar);
    /// U = −log(clip(p, floor, 1)).
    bool set_unary_from_probabilities(const float* planar, float floor);

    /// Adds a pairwise term. The filter may be built or rebuilt until the next step, for as many pixels.
    void add_term(std::shared_ptr<const Filter> filter, Compatibility compatibility);

    /// Q = softmax(−U).
    void start();
    /// One mean-field update of Q.
    void step();

    /// Q as planar [channels, pixels].
    void read_marginals(float* planar) const;
    bool write_marginals(const float* planar);
    /// The most probable label of each pixel; of equals, the lowest.
    void read_labels(std::uint8_t* labels) const;
    /// KL divergence of Q from the CRF's distribution, up to a constant: ΣQ·log Q + ΣU·Q + Σ_k ΣQ∘μ_k(K̂_k Q).
    double kl_divergence();

  private:
    struct Term {
        std::shared_ptr<const Filter> filter;
        std::vector<float> scale;   ///< [padded channels], what is added to −U per unit of filter response
        std::vector<float> matrix;  ///< [padded, padded], from row to column; empty for a diagonal compatibility
        std::size_t values = 0;     ///< where the filter's values begin in arena_
    };
    void check_pixels(const Filter& filter) const;
    bool read_planar(const float* planar, float sign, float* rows) const;
    void filter_terms();
    std::vector<float> energies(std::int64_t begin, std::int64_t end) const;

    std::int64_t pixels_;
    ChannelLayout layout_;
    int threads_;
    Buffer<float> logits_;     ///< −U, [pixels, padded channels]
    Buffer<float> marginals_;  ///< Q, [pixels, padded channels]
    Buffer<float> arena_;      ///< lattice values of the terms, each followed by its scratch memory until the next
    std::vector<Term> terms_;
};

}  // namespace atrous
