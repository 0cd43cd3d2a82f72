// The engines in this build, and which of them a bundle and its user get.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "pipeline.hpp"

namespace atrous::core {

/// What the user asked for, checked as far as no bundle is needed.
struct Options {
    std::string backend = "auto";
    std::string precision = "auto";
    bool has_crf = false;
    int crf_iterations = -1;  ///< below 0: the bundle's
    bool crf_has_fractions = false;
    float crf_class_floor = 0;
    int threads = 0;  ///< 0: all cores
    int device = 0;
};

struct Backend {
    std::string name;
    /// Throws Failure where it cannot run the bundle as asked.
    std::function<std::unique_ptr<Pipeline>(std::shared_ptr<const Bundle>, const Options&)> open;
};

/// Fastest first. What is added here can be asked for by name.
std::vector<Backend>& catalogue();

/// The backend asked for, or the first that can run the bundle. Throws Failure.
std::unique_ptr<Pipeline> open_pipeline(std::shared_ptr<const Bundle> bundle, const Options& options);

/// The ONNX artifact of that precision (`auto`: the most precise; `bf16`: the FP32 one). Throws Failure(ENGINE),
/// listing what is there.
const Artifact& find_onnx(const Bundle& bundle, const std::string& precision, const char* backend);

/// The graph that was rewritten from `graph` and measured in this version of the backend on this kind of CPU, to run in
/// that precision; `graph` itself where there is none.
const Artifact& tuned_or(const Artifact& graph, const Bundle& bundle, const std::string& precision, const char* backend,
                         const std::string& version);

#if defined(ATROUS_WITH_OPENVINO)
Backend openvino_backend();
#endif
#if defined(ATROUS_WITH_TENSORRT)
Backend tensorrt_backend();
#endif

}  // namespace atrous::core
