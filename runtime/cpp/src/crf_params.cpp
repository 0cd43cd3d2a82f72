#include "crf_params.hpp"

#include <cstring>
#include <utility>

#include "failure.hpp"

namespace atrous::core {

CrfParams crf_params_of(const Manifest& manifest) {
    CrfParams params;
    if (!manifest.crf || manifest.crf->empty()) return params;
    const std::pair<const char*, double*> known[] = {{"bilateral_weight", &params.bilateral_weight},
                                                     {"bilateral_sigma_xy_px", &params.bilateral_sigma_xy_px},
                                                     {"bilateral_sigma_rgb", &params.bilateral_sigma_rgb},
                                                     {"gaussian_weight", &params.gaussian_weight},
                                                     {"gaussian_sigma_xy_px", &params.gaussian_sigma_xy_px}};
    std::size_t found = 0;
    for (const auto& [name, target] : known) {
        const auto entry = manifest.crf->find(name);
        if (entry == manifest.crf->end()) {
            fail(ATROUS_ERROR_CRF, "the bundle's CRF parameters lack ", name);
        }
        ++found;
        *target = entry->second;
        if (std::strstr(name, "sigma") != nullptr && !(*target > 0)) {
            fail(ATROUS_ERROR_CRF, "CRF parameter ", name, " is a standard deviation and must be positive, got ",
                 *target, "; to leave a kernel out, set its weight to 0");
        }
    }
    if (manifest.crf->size() == found) return params;
    std::string unknown;
    for (const auto& entry : *manifest.crf) {
        bool is_known = false;
        for (const auto& name : known) is_known = is_known || entry.first == name.first;
        if (!is_known) unknown += (unknown.empty() ? "" : ", ") + entry.first;
    }
    fail(ATROUS_ERROR_CRF, "unknown CRF parameters in the bundle: ", unknown);
}

}  // namespace atrous::core
