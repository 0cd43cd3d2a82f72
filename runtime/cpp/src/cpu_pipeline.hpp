// An image through an engine on the CPU: prepare, infer (in tiles where it must be), upsample, refine.
#pragma once

#include <memory>

#include "bundle.hpp"
#include "catalogue.hpp"
#include "engine.hpp"

namespace atrous::core {

std::unique_ptr<Pipeline> make_cpu_pipeline(std::shared_ptr<const Bundle> bundle, std::unique_ptr<Engine> engine,
                                            const Options& options, Description description);

}  // namespace atrous::core
