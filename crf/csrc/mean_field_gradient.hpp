// Mean-field inference that can be differentiated: back-propagation through its updates.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "mean_field.hpp"

namespace atrous {

/// Gradients of a loss with respect to what inference depends on.
struct MeanFieldGradient {
    std::vector<float> logits;               ///< of −U, planar [channels, pixels]
    std::vector<std::vector<double>> terms;  ///< of X = −μ of each term, [channels, channels]
};

/// A MeanField whose inference can be differentiated.
///
/// An update is Q' = softmax(L + Σ_k K̂_k Q X_k) with L = −U and rows for pixels. With g the gradient of the softmax's
/// argument, that of Q is Σ_k K̂_kᵀ g X_kᵀ, that of X_k is Qᵀ K̂_kᵀ g, and L gets g itself: one filter for each term and
/// update, through the same lattice with its axes in reverse order. The Q between updates are computed again; about
/// 2√iterations of them are in memory at a time.
class DifferentiableMeanField : public MeanField<float> {
  public:
    using MeanField::MeanField;

    /// Back-propagates `marginal_gradient`, planar [channels, pixels], that of Q after so many updates, and calls
    /// `between` after each update and each step back. Overwrites Q. Of the gradients of terms, without `is_full`, only
    /// the diagonals are computed.
    MeanFieldGradient differentiate(const float* marginal_gradient, int iterations, bool is_full,
                                    const std::function<void()>& between);

  private:
    /// Q after the updates that are done, as far as they are needed on the way back.
    struct Trace {
        int stride;                             ///< updates from one that is kept to the next
        std::vector<Buffer<float>> kept;        ///< of every stride-th update, but the first
        std::vector<Buffer<float>> recomputed;  ///< of those between two that are kept
    };

    Trace replay(int iterations, const std::function<void()>& between);
    void restore(Trace& trace, int done, const std::function<void()>& between);
    void copy(const Buffer<float>& from, Buffer<float>& to) const;
    void differentiate_softmax(MeanFieldGradient& gradient);
    void differentiate_filters(MeanFieldGradient& gradient, bool is_full);
    void step_back(std::size_t term, std::int64_t begin, std::int64_t end, bool is_full, double* sums,
                   std::vector<float>& next) const;

    Buffer<float> gradient_;  ///< of Q, then of the argument of its softmax, [pixels, padded channels]
};

}  // namespace atrous
