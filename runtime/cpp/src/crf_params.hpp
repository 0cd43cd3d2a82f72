// Parameters of the dense CRF, as in crf/params.py.
#pragma once

#include "crf/csrc/launch_plan.hpp"
#include "manifest.hpp"

namespace atrous::core {

using atrous::CrfParams;

/// The manifest's parameters, DeepLab v2's on ResNet-101 where it has none. Throws Failure(CRF) where unusable.
CrfParams crf_params_of(const Manifest& manifest);

}  // namespace atrous::core
