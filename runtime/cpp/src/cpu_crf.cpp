#include "cpu_crf.hpp"

#include <unistd.h>

#include <algorithm>

#include "crf/csrc/features.hpp"
#include "failure.hpp"
#include "native/error.hpp"
#include "native/parallel.hpp"

namespace atrous::core {
namespace {

constexpr std::int64_t kBilateralCorners = 6;
constexpr std::int64_t kGaussianCorners = 3;
/// Lattice index and weight of a pixel's corner, its sorted entry, and neighbour links of 1.5 vertices a pixel.
constexpr std::int64_t kBytesPerCorner = 28;

void check_memory(std::int64_t channels, const Size& size) {
    const std::int64_t pixels = std::int64_t{size.height} * size.width;
    const std::int64_t row_bytes = 4 * (channels == 1 ? 1 : std::max<std::int64_t>(4, (channels + 7) / 8 * 8));
    // Unaries, marginals, output, and values of about as many vertices as pixels in each of the two lattices.
    const std::int64_t estimate = pixels * (5 * row_bytes + kBytesPerCorner * (kBilateralCorners + kGaussianCorners));
    const std::int64_t available = std::int64_t{sysconf(_SC_PAGESIZE)} * sysconf(_SC_PHYS_PAGES);
    if (pixels * kBilateralCorners < (std::int64_t{1} << 31) && estimate <= available) return;
    constexpr double kGiB = 1 << 30;
    fail(ATROUS_ERROR_CRF, "a dense CRF of ", channels, " classes on ", to_text(size), " pixels needs about ",
         static_cast<double>(estimate) / kGiB, " GiB; this machine has ", static_cast<double>(available) / kGiB,
         " GiB and the limit is 357 million pixels. Refine a smaller picture or tiles of it");
}

Compatibility potts(int channels, double weight) {
    Compatibility compatibility;
    compatibility.diagonal.assign(channels, static_cast<float>(-weight));
    return compatibility;
}

Compatibility gaussian_compatibility(const CrfParams& params, int channels) {
    if (!params.interaction) return potts(channels, params.gaussian_weight);
    const auto weight = static_cast<float>(params.gaussian_weight);
    return compatibility_of(weight, params.interaction->gaussian, params.interaction->matrix);
}

Compatibility bilateral_compatibility(const CrfParams& params, int channels) {
    if (!params.interaction) return potts(channels, params.bilateral_weight);
    const auto weight = static_cast<float>(params.bilateral_weight);
    return compatibility_of(weight, params.interaction->bilateral, params.interaction->matrix);
}

}  // namespace

CpuCrf::CpuCrf(const CrfParams& params, int iterations, int threads, bool has_fractions, float class_floor)
    : params_(params),
      iterations_(iterations),
      threads_(resolve_threads(threads)),
      has_fractions_(has_fractions),
      class_floor_(class_floor) {
    check_floor(params, class_floor);
}

void CpuCrf::check_floor(const CrfParams& params, float class_floor) {
    check_class_floor(class_floor, params.gaussian_weight, params.bilateral_weight);
    if (class_floor == 0 || !params.interaction) return;
    fail(ATROUS_ERROR_CRF,
         "crf_class_floor needs the Potts compatibility, and this bundle's CRF has one that was learned; set it to 0");
}

void CpuCrf::allocate(int channels, const Size& size) {
    if (field_.index() != 0 && channels == channels_ && size == size_) return;
    check_memory(channels, size);
    field_ = std::monostate();  // frees the old buffers before the new ones are made
    bilateral_ = std::make_shared<Filter>(has_fractions_);
    if (has_fractions_) {
        field_ = make_field<Fraction>(channels, size);
    } else {
        field_ = make_field<float>(channels, size);
    }
    channels_ = channels;
    size_ = size;
}

template <typename T>
CpuCrf::Field<T> CpuCrf::make_field(int channels, const Size& size) const {
    auto field = std::make_unique<MeanField<T>>(std::int64_t{size.height} * size.width, channels, threads_);
    if (params_.gaussian_weight != 0) {
        auto gaussian = std::make_shared<Filter>(has_fractions_);
        const auto sigma = static_cast<float>(params_.gaussian_sigma_xy_px);
        gaussian->build(PositionFeatures(size.height, size.width, sigma, sigma), Normalization::symmetric, threads_);
        field->add_term(gaussian, gaussian_compatibility(params_, channels));
    }
    if (params_.bilateral_weight != 0) field->add_term(bilateral_, bilateral_compatibility(params_, channels));
    return field;
}

void CpuCrf::refine(const float* probabilities, int channels, const std::uint8_t* rgb, const Size& size, void* labels,
                    float* marginals) {
    const std::int64_t pixels = std::int64_t{size.height} * size.width;
    const auto temperature = static_cast<float>(params_.unary_temperature);
    const ClassSubset subset = likely_classes(probabilities, channels, pixels, class_floor_, temperature, threads_);
    allocate(static_cast<int>(subset.kept.size()), size);
    if (iterations_ > 0 && params_.bilateral_weight != 0) {
        const auto sigma_xy = static_cast<float>(params_.bilateral_sigma_xy_px);
        const auto sigma = static_cast<float>(params_.bilateral_sigma_rgb);
        const float sigma_rgb[3] = {sigma, sigma, sigma};
        const ColourFeatures features(rgb, size.height, size.width, sigma_xy, sigma_xy, sigma_rgb);
        bilateral_->build(features, Normalization::symmetric, threads_);
    }
    const auto infer = [&](auto& field) {
        if (!field.set_unary_from_probabilities(probabilities, subset, temperature)) {
            fail(ATROUS_ERROR_ENGINE, "probabilities are not finite");
        }
        field.infer(iterations_, [] {});
        if (channels > 256) {
            field.read_labels(static_cast<std::uint16_t*>(labels), subset);
        } else {
            field.read_labels(static_cast<std::uint8_t*>(labels), subset);
        }
        if (marginals != nullptr) field.read_marginals(marginals, subset);
    };
    if (has_fractions_) {
        infer(*std::get<Field<Fraction>>(field_));
    } else {
        infer(*std::get<Field<float>>(field_));
    }
}

}  // namespace atrous::core
