// Mean-field inference in a fully connected CRF (Krähenbühl & Koltun 2011).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "class_subset.hpp"
#include "compatibility.hpp"
#include "lattice.hpp"
#include "native/buffer.hpp"

namespace atrous {

/// Pixels of a piece of work: few enough that their rows stay in the nearest caches, enough to hide the scheduling.
constexpr std::int64_t kTile = 512;

/// Where the filter response is divided by s = K·1 (self term included).
enum class Normalization { none, before, after, symmetric };

/// A normalised Gaussian kernel over the pixels: K̂ = diag(after) · K · diag(before).
class Filter {
  public:
    /// For rows of floats, or of fractions.
    explicit Filter(bool takes_fractions = false) : takes_fractions_(takes_fractions) {}

    /// Builds the kernel; a second call reuses the memory of the first's lattice.
    void build(const FeatureSource& source, Normalization normalization, int threads);
    const Lattice& lattice() const { return lattice_; }

    /// out = K̂ · values, both planar [channels, pixels]. With the reverse order K̂ᵀ · values, for a filter that is
    /// normalised on both sides or on none: on one side it would have to change sides. `out` may be `values`.
    void apply(const float* values, int channels, AxisOrder order, float* out, int threads) const;

  private:
    Normalization normalization_ = Normalization::none;
    bool takes_fractions_;
    Lattice lattice_;
};

/// Q ← softmax(−U − Σ_k μ_k(K̂_k Q)), all buffers allocated once. Not to be used from two threads at once.
///
/// Q between two updates, and what is on the lattices, are rows of T, float or Fraction; everything else is floats.
template <typename T>
class MeanField {
  public:
    MeanField(std::int64_t pixels, int channels, int threads);

    std::int64_t pixels() const { return pixels_; }
    int channels() const { return layout_.channels; }

    /// Unary energies U = −log(clip(p, kProbabilityFloor, 1)) of planar p [classes, pixels], of which the channels are
    /// the classes that `subset` keeps. False, leaving them unusable, when one of their probabilities is not finite.
    /// A temperature other than 1 divides U.
    bool set_unary_from_probabilities(const float* planar, const ClassSubset& subset, float temperature = 1.0f);

    /// Adds a pairwise term. The filter may be built or rebuilt until the next update, for as many pixels.
    void add_term(std::shared_ptr<const Filter> filter, Compatibility compatibility);
    std::size_t terms() const { return terms_.size(); }
    /// Gives the term of that number, in the order of add_term(), another filter.
    void replace_filter(std::size_t term, std::shared_ptr<const Filter> filter) {
        terms_.at(term).filter = std::move(filter);
    }

    /// Q = softmax(−U), and so many updates, calling `between` after each. Where rows are fractions the result takes
    /// the place of the unaries, which must be set before the next call.
    void infer(int iterations, const std::function<void()>& between);

    /// Q as planar [classes, pixels]; what `subset` left out has kProbabilityFloor.
    void read_marginals(float* planar, const ClassSubset& subset) const;
    /// The most probable class of each pixel, in bytes or, of more than 256, in 16 bits; of equals, the lowest.
    template <typename Label>
    void read_labels(Label* labels, const ClassSubset& subset) const;

  protected:
    struct Term {
        std::shared_ptr<const Filter> filter;
        std::vector<float> scale;   ///< [padded channels], what is added to −U per unit of filter response
        std::vector<float> matrix;  ///< [padded, padded], from row to column; empty for a diagonal compatibility
        std::size_t values = 0;     ///< where the filter's values begin in arena_
    };
    void check_filter(const Filter& filter) const;
    bool read_planar(const float* planar, const ClassSubset& subset, float sign, float* rows) const;
    void filter_terms(const T* rows, AxisOrder order = AxisOrder::forward);
    std::vector<float> unaries(std::int64_t begin, std::int64_t end) const;
    void add_responses(std::int64_t begin, std::int64_t end, std::vector<float>& sum) const;
    void update(bool is_first, bool is_last);
    float* result();
    const float* result() const { return const_cast<MeanField*>(this)->result(); }

    std::int64_t pixels_;
    ChannelLayout layout_;
    int threads_;
    Buffer<float> logits_;  ///< −U, [pixels, padded channels]
    Buffer<T> marginals_;   ///< Q, [pixels, padded channels]
    Buffer<T> arena_;       ///< lattice values of the terms, each followed by its scratch memory until the next
    std::vector<Term> terms_;
};

extern template class MeanField<float>;
extern template class MeanField<Fraction>;

}  // namespace atrous
