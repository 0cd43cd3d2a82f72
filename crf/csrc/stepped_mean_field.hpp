// Mean-field inference that stops between two updates to be looked at, as pydensecrf's does.
#pragma once

#include <cstdint>

#include "mean_field.hpp"

namespace atrous {

/// A MeanField whose Q may be read and replaced after each update.
class SteppedMeanField : public MeanField<float> {
  public:
    using MeanField::MeanField;

    /// Unary energies U, planar [channels, pixels]. False, leaving them unusable, when one is not finite.
    bool set_unary(const float* planar) { return read_planar(planar, all(), -1.0f, logits_.data()); }

    /// Q = softmax(−U).
    void start() { update(true, false); }
    /// One update of Q.
    void step() { update(false, false); }

    /// Replaces Q by planar [channels, pixels]. False, leaving it unusable, when a value is not finite.
    bool write_marginals(const float* planar) { return read_planar(planar, all(), 1.0f, marginals_.data()); }

    /// KL divergence of Q from the CRF's distribution, up to a constant: ΣQ·log Q + ΣU·Q + Σ_k ΣQ∘μ_k(K̂_k Q).
    double kl_divergence();

  private:
    ClassSubset all() const { return ClassSubset::all(layout_.channels); }
};

}  // namespace atrous
