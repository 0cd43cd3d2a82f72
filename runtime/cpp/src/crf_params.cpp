#include "crf_params.hpp"

#include <cstring>
#include <utility>

#include "failure.hpp"

namespace atrous::core {
namespace {

constexpr int kDefaultIterations = 10;
/// As in crf/params.py.
constexpr double kMinTemperature = 1e-3;
constexpr double kMaxTemperature = 1e3;
/// Beside the parameters.
constexpr const char* kIterations = "iterations";
/// The only parameter that a manifest may leave out.
constexpr const char* kTemperature = "unary_temperature";

}  // namespace

CrfParams crf_params_of(const Manifest& manifest) {
    CrfParams params;
    params.interaction = manifest.crf_compatibility;
    if (!manifest.crf || manifest.crf->empty()) return params;
    const std::pair<const char*, double*> known[] = {{"bilateral_weight", &params.bilateral_weight},
                                                     {"bilateral_sigma_xy_px", &params.bilateral_sigma_xy_px},
                                                     {"bilateral_sigma_rgb", &params.bilateral_sigma_rgb},
                                                     {"gaussian_weight", &params.gaussian_weight},
                                                     {"gaussian_sigma_xy_px", &params.gaussian_sigma_xy_px},
                                                     {kTemperature, &params.unary_temperature}};
    std::size_t found = manifest.crf->count(kIterations);
    for (const auto& [name, target] : known) {
        const auto entry = manifest.crf->find(name);
        if (entry == manifest.crf->end()) {
            if (name == kTemperature) continue;
            fail(ATROUS_ERROR_CRF, "the bundle's CRF parameters lack ", name);
        }
        ++found;
        *target = entry->second;
        if (std::strstr(name, "sigma") != nullptr && !(*target > 0)) {
            fail(ATROUS_ERROR_CRF, "CRF parameter ", name, " is a standard deviation and must be positive, got ",
                 *target, "; to leave a kernel out, set its weight to 0");
        }
    }
    if (!(params.unary_temperature >= kMinTemperature && params.unary_temperature <= kMaxTemperature)) {
        fail(ATROUS_ERROR_CRF, "CRF parameter ", kTemperature, " divides the unaries and must be ", kMinTemperature,
             " to ", kMaxTemperature, ", got ", params.unary_temperature);
    }
    if (manifest.crf->size() == found) return params;
    std::string unknown;
    for (const auto& entry : *manifest.crf) {
        bool is_known = entry.first == kIterations;
        for (const auto& name : known) is_known = is_known || entry.first == name.first;
        if (!is_known) unknown += (unknown.empty() ? "" : ", ") + entry.first;
    }
    fail(ATROUS_ERROR_CRF, "unknown CRF parameters in the bundle: ", unknown);
}

int crf_iterations_of(const Manifest& manifest, int asked) {
    if (asked >= 0) return asked;
    if (!manifest.crf || manifest.crf->count(kIterations) == 0) return kDefaultIterations;
    return static_cast<int>(manifest.crf->at(kIterations));  // whole and in range, says the schema
}

}  // namespace atrous::core
