// The dense CRF on the CPU core that Python uses as well (crf/csrc).
#pragma once

#include <cstdint>
#include <memory>
#include <variant>

#include "crf/csrc/mean_field.hpp"
#include "crf_params.hpp"

namespace atrous::core {

/// Buffers and the Gaussian lattice are kept between calls of one size. For one thread at a time.
class CpuCrf {
  public:
    /// `has_fractions`: rows on the lattices, and Q between updates, are 16-bit fractions of 1. `class_floor`: classes
    /// that are nowhere as likely take no part. Throws unless check_floor() accepts it.
    CpuCrf(const CrfParams& params, int iterations, int threads, bool has_fractions = false, float class_floor = 0);

    /// Throws CrfError or Failure(CRF) where classes below a floor cannot be left out with these parameters.
    static void check_floor(const CrfParams& params, float class_floor);

    /// `probabilities` [channels, height, width], `rgb` [height, width, 3]; writes labels [height, width], of 16 bits
    /// where there are more than 256 channels, and, where `marginals` is not null, marginals of the probabilities'
    /// shape (which may be the same memory).
    void refine(const float* probabilities, int channels, const std::uint8_t* rgb, const Size& size, void* labels,
                float* marginals);

  private:
    template <typename T>
    using Field = std::unique_ptr<MeanField<T>>;

    void allocate(int channels, const Size& size);
    template <typename T>
    Field<T> make_field(int channels, const Size& size) const;

    CrfParams params_;
    int iterations_, threads_;
    bool has_fractions_;
    float class_floor_;
    Size size_;
    int channels_ = 0;
    std::shared_ptr<Filter> bilateral_;
    std::variant<std::monostate, Field<float>, Field<Fraction>> field_;
};

}  // namespace atrous::core
