// Parameters of the dense CRF, as in crf/params.py.
#pragma once

#include "crf/csrc/launch_plan.hpp"
#include "manifest.hpp"

namespace atrous::core {

using atrous::CrfParams;

/// The manifest's parameters, DeepLab v2's on ResNet-101 where it has none. Throws Failure(CRF) where unusable.
CrfParams crf_params_of(const Manifest& manifest);

/// Mean-field updates: as many as asked for or, where that is below 0, as the manifest says, 10 where it says nothing.
int crf_iterations_of(const Manifest& manifest, int asked);

}  // namespace atrous::core
