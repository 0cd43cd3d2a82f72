// Does an engine fit this machine? Judged by what the manifest says of it, before TensorRT sees a byte; as
// runtime/backends/engine_fit.py.
#pragma once

#include <string>

#include "bundle.hpp"

namespace atrous::core {

/// What engines are to be run by, and on.
struct EngineHost {
    std::string flavor;              ///< "tensorrt" or "tensorrt-rtx"
    std::string version;             ///< in full, "11.4.0.12"
    std::string compute_capability;  ///< "8.9"
    std::string gpu;                 ///< its name, for messages
    int cuda_major;                  ///< that the driver can serve
};

/// The engine of that precision (`auto`: the most precise) that fits. Throws Failure(ENGINE), saying why each does not.
const Artifact& find_engine(const Bundle& bundle, const std::string& precision, const EngineHost& host);

/// Why an engine cannot be loaded there, as the end of a sentence about it; empty where nothing speaks against it.
std::string why_not(const EngineIdentity& identity, const EngineHost& host);

}  // namespace atrous::core
