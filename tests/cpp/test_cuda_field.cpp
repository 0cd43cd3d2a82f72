// What a field can be asked for, on the stand-in driver: storages, norms, compatibilities and batches, against the CPU
// core.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "crf/csrc/features.hpp"
#include "crf/csrc/mean_field.hpp"
#include "cuda/crf_field.hpp"
#include "cuda/images.hpp"
#include "failure.hpp"
#include "gpu.hpp"
#include "testing.hpp"

using namespace atrous::core;
using atrous::Compatibility;
using atrous::Normalization;

namespace {

/// Marginals on the GPU against the CPU core, both of which sum in their own order. Measured: 6.6e-7.
constexpr float kMarginals = 1e-5f;
/// The same in 16-bit fractions, where a sum may round to the next one, 1.5e-5 away. Measured: 2.6e-5.
constexpr float kFractions = 1e-4f;

/// Pictures, and probabilities of their classes.
struct Scene {
    Scene(const cuda::FieldSpec& spec, unsigned seed) : classes(spec.classes), area(spec.batch().area()) {
        std::mt19937 random(seed);
        for (std::int64_t i = 0; i < 3 * spec.batch().pixels(); ++i) rgb.push_back(random() % 64);
        for (int image = 0; image < spec.images; ++image) {
            std::vector<float> planes(classes * area);
            for (float& value : planes) value = 0.01f + static_cast<float>(random() % 1000) / 1000.0f;
            for (std::int64_t i = 0; i < area; ++i) {
                float sum = 0;
                for (int c = 0; c < classes; ++c) sum += planes[c * area + i];
                for (int c = 0; c < classes; ++c) planes[c * area + i] /= sum;
            }
            maps.insert(maps.end(), planes.begin(), planes.end());
        }
    }
    int classes;
    std::int64_t area;
    std::vector<std::uint8_t> rgb;  ///< [images, height, width, 3]
    std::vector<float> maps;        ///< [images, classes, height, width]
};

std::vector<float> on_gpu(const cuda::FieldSpec& spec, const Compatibility& compatibility, const Scene& scene) {
    const cuda::Stream stream(device());
    cuda::Replayer queue(device(), stream, cuda::kCrfImage);
    cuda::Field field(queue, spec, atrous::KernelCompatibilities{compatibility, compatibility});
    const cuda::Memory picture(device(), scene.rgb.size());
    const cuda::Memory marginals(device(), scene.maps.size() * sizeof(float));
    stream.upload(picture.region(), scene.rgb.data(), scene.rgb.size());
    stream.upload(field.probabilities(), scene.maps.data(), scene.maps.size() * sizeof(float));
    field.queue_frame(picture.region());
    field.queue_marginals(marginals.region());
    std::vector<float> found(scene.maps.size());
    cuda::FieldReport report{};
    stream.download(found.data(), marginals.region(), found.size() * sizeof(float));
    stream.download(&report, field.report(), sizeof report);
    stream.synchronize();
    CHECK_EQUAL(report.failures, 0U);
    return found;
}

template <typename T>
std::vector<float> on_cpu(const cuda::FieldSpec& spec, const Compatibility& compatibility, const Scene& scene) {
    const auto weighted = [&](double weight) {
        Compatibility found = compatibility;
        for (float& value : found.diagonal) value *= static_cast<float>(weight);
        for (float& value : found.matrix) value *= static_cast<float>(weight);
        return found;
    };
    std::vector<float> all;
    for (int image = 0; image < spec.images; ++image) {
        atrous::MeanField<T> field(scene.area, spec.classes, 1);
        const auto sigma_xy = static_cast<float>(spec.params.gaussian_sigma_xy_px);
        auto gaussian = std::make_shared<atrous::Filter>(spec.has_fractions);
        gaussian->build(atrous::PositionFeatures(spec.height, spec.width, sigma_xy, sigma_xy), spec.normalization, 1);
        field.add_term(gaussian, weighted(spec.params.gaussian_weight));
        const auto wide_xy = static_cast<float>(spec.params.bilateral_sigma_xy_px);
        const auto rgb = static_cast<float>(spec.params.bilateral_sigma_rgb);
        const float sigma_rgb[3] = {rgb, rgb, rgb};
        auto bilateral = std::make_shared<atrous::Filter>(spec.has_fractions);
        bilateral->build(atrous::ColourFeatures(scene.rgb.data() + 3 * scene.area * image, spec.height, spec.width,
                                                wide_xy, wide_xy, sigma_rgb),
                         spec.normalization, 1);
        field.add_term(bilateral, weighted(spec.params.bilateral_weight));
        const auto classes = atrous::ClassSubset::all(spec.classes);
        CHECK(field.set_unary_from_probabilities(scene.maps.data() + spec.classes * scene.area * image, classes));
        field.infer(spec.iterations, [] {});
        std::vector<float> marginals(spec.classes * scene.area);
        field.read_marginals(marginals.data(), classes);
        all.insert(all.end(), marginals.begin(), marginals.end());
    }
    return all;
}

void check_equal(const cuda::FieldSpec& spec, const Compatibility& compatibility, unsigned seed) {
    const Scene scene(spec, seed);
    const auto actual = on_gpu(spec, compatibility, scene);
    const auto expected = spec.has_fractions ? on_cpu<atrous::Fraction>(spec, compatibility, scene)
                                             : on_cpu<float>(spec, compatibility, scene);
    float worst = 0;
    for (std::size_t i = 0; i < actual.size(); ++i) worst = std::max(worst, std::fabs(actual[i] - expected[i]));
    CHECK(worst <= (spec.has_fractions ? kFractions : kMarginals));
}

/// Weights of which sums that nothing divides stay moderate.
const CrfParams kWeak{0.5, 67, 3, 0.4, 1};

}  // namespace

TEST(cuda_field_takes_every_storage_normalization_and_compatibility) {
    const cuda::Current current(*device());
    const Compatibility vector{{-1.0f, -0.5f, -0.25f, -0.75f}, {}};
    const Compatibility matrix{
        {}, {-1.2f, 0.3f, -0.1f, 0.0f, 0.3f, -0.9f, 0.2f, 0.1f, -0.1f, 0.2f, -1.0f, -0.4f, 0.0f, 0.1f, -0.4f, -1.1f}};
    for (const bool has_fractions : {false, true}) {
        for (const auto kind :
             {Normalization::none, Normalization::before, Normalization::after, Normalization::symmetric}) {
            for (const auto& compatibility : {vector, matrix}) {
                check_equal({4, 8, 9, 3, kWeak, has_fractions, kind}, compatibility, 11);
            }
        }
    }
}

TEST(cuda_field_takes_fractions_of_any_number_of_classes) {
    const cuda::Current current(*device());
    for (const auto& [classes, height, width] : {std::tuple{1, 4, 4}, {2, 1, 13}, {21, 12, 13}, {256, 4, 6}}) {
        const Compatibility potts{std::vector<float>(classes, -1.0f), {}};
        check_equal({classes, height, width, 5, CrfParams{}, true}, potts, 3);
    }
}

TEST(cuda_field_takes_batches) {
    const cuda::Current current(*device());
    const Compatibility potts{std::vector<float>(5, -1.0f), {}};
    for (const bool has_fractions : {false, true}) {
        check_equal({5, 7, 9, 4, CrfParams{}, has_fractions, Normalization::symmetric, 3}, potts, 5);
    }
}

TEST(cuda_field_refuses_what_kernels_cannot_index_or_memory_cannot_hold) {
    const cuda::Current current(*device());
    const cuda::Stream stream(device());
    cuda::Replayer queue(device(), stream, cuda::kCrfImage);
    const auto message = [&](const cuda::FieldSpec& spec) -> std::string {
        try {
            const cuda::Field field(queue, spec);
        } catch (const std::exception& error) {
            return error.what();
        }
        return "";
    };
    CHECK(message({1, 30000, 30000, 10, CrfParams{}}).find("million pixels") != std::string::npos);
    CrfParams narrow;
    narrow.gaussian_sigma_xy_px = 1e-6;
    CHECK(message({2, 6, 8, 10, narrow}).find("sigma of 1e-06 px") != std::string::npos);
}
