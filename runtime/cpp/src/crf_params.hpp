// Parameters of the dense CRF, as in crf/params.py.
#pragma once

#include "manifest.hpp"

namespace atrous::core {

struct CrfParams {
    double bilateral_weight = 4, bilateral_sigma_xy_px = 67, bilateral_sigma_rgb = 3;
    double gaussian_weight = 3, gaussian_sigma_xy_px = 1;
};

/// The manifest's parameters, DeepLab v2's on ResNet-101 where it has none. Throws Failure(CRF) where unusable.
CrfParams crf_params_of(const Manifest& manifest);

}  // namespace atrous::core
