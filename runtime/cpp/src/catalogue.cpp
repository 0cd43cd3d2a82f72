#include "catalogue.hpp"

#include <utility>

#include "failure.hpp"

namespace atrous::core {
namespace {

std::vector<Backend> built_in() {
    std::vector<Backend> backends;
#if defined(ATROUS_WITH_TENSORRT)
    backends.push_back(tensorrt_backend());
#endif
#if defined(ATROUS_WITH_OPENVINO)
    backends.push_back(openvino_backend());
#endif
    return backends;
}

std::string names() {
    std::string joined;
    for (const Backend& backend : catalogue()) joined += ", " + backend.name;
    return joined;
}

void check_names(const Options& options) {
    bool is_known = options.backend == "auto";
    for (const Backend& backend : catalogue()) is_known = is_known || backend.name == options.backend;
    if (!is_known) {
        const bool is_other = options.backend == "openvino" || options.backend == "tensorrt";
        fail(is_other ? ATROUS_ERROR_UNAVAILABLE : ATROUS_ERROR_ARGUMENT, "backend '", options.backend, "' is ",
             is_other ? "not in this build" : "unknown", "; expected auto", names());
    }
    for (const char* known : {"auto", "fp32", "bf16", "fp16", "int8"}) {
        if (options.precision == known) return;
    }
    fail(ATROUS_ERROR_ARGUMENT, "unknown precision '", options.precision, "'; expected auto, fp32, bf16, fp16 or int8");
}

}  // namespace

std::vector<Backend>& catalogue() {
    static std::vector<Backend>* const backends = new std::vector<Backend>(built_in());
    return *backends;
}

std::unique_ptr<Pipeline> open_pipeline(std::shared_ptr<const Bundle> bundle, const Options& options) {
    check_names(options);
    if (catalogue().empty()) {
        fail(ATROUS_ERROR_UNAVAILABLE, "this build has no engine: configure it with ATROUS_WITH_OPENVINO=ON");
    }
    std::string passed_over;
    for (const Backend& backend : catalogue()) {
        if (options.backend != "auto" && options.backend != backend.name) continue;
        const bool is_last = options.backend != "auto" || &backend == &catalogue().back();
        try {
            auto pipeline = backend.open(bundle, options);
            pipeline->description.note = passed_over;
            return pipeline;
        } catch (const Failure& failure) {
            // A damaged file is no reason to run another one quietly.
            if (is_last || failure.status() == ATROUS_ERROR_BUNDLE || failure.status() == ATROUS_ERROR_CRF) throw;
            passed_over += text(passed_over.empty() ? "" : "; ", backend.name, ": ", failure.what());
        }
    }
    fail(ATROUS_ERROR_INTERNAL, "no backend was tried");
}

const Artifact& find_onnx(const Bundle& bundle, const std::string& precision, const char* backend) {
    const std::string wanted = precision == "bf16" ? "fp32" : precision;
    std::string have;
    for (const char* known : {"fp32", "fp16", "int8"}) {
        for (const Artifact& artifact : bundle.manifest().artifacts) {
            if (artifact.kind != "onnx" || artifact.precision != known) continue;
            if (wanted == "auto" || wanted == known) return artifact;
            have += text(have.empty() ? "" : ", ", known);
        }
    }
    fail(ATROUS_ERROR_ENGINE, bundle.path().string(), " has no ", wanted == "auto" ? "" : wanted + " ",
         "ONNX graph for the ", backend, " backend; it has: ", have.empty() ? "none" : have);
}

const Artifact& tuned_or(const Artifact& graph, const Bundle& bundle, const std::string& precision, const char* backend,
                         const std::string& version) {
    for (const Artifact& artifact : bundle.manifest().artifacts) {
        const auto& tuning = artifact.tuned_for;
        if (!tuning || tuning->backend != backend || tuning->from != graph.sha256) continue;
        if (artifact.precision == precision && tuning->version == version && tuning->cpu == cpu_kind()) return artifact;
    }
    return graph;
}

}  // namespace atrous::core
