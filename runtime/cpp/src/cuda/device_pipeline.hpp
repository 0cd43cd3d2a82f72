// An image through an engine on the GPU, from upload to labels.
#pragma once

#include <memory>

#include "catalogue.hpp"
#include "cuda/device_engine.hpp"

namespace atrous::core::cuda {

std::unique_ptr<Pipeline> make_device_pipeline(std::shared_ptr<const Device> device,
                                               std::shared_ptr<const Bundle> bundle,
                                               std::shared_ptr<DeviceBackend> backend, const Options& options,
                                               Description description);

}  // namespace atrous::core::cuda
