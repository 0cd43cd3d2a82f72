#include "model.hpp"

#include <sched.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "status.hpp"

namespace atrous::triton {

namespace {

using nlohmann::json;

constexpr std::uint32_t kConfigVersion = 1;

json read_config(TRITONBACKEND_Model* model) {
    TRITONSERVER_Message* message = nullptr;
    require(TRITONBACKEND_ModelConfig(model, kConfigVersion, &message));
    const char* text = nullptr;
    std::size_t bytes = 0;
    TRITONSERVER_Error* error = TRITONSERVER_MessageSerializeToJson(message, &text, &bytes);
    const std::string copy = error == nullptr ? std::string(text, bytes) : std::string();
    ignore(TRITONSERVER_MessageDelete(message));
    require(error);
    return json::parse(copy);
}

std::string parameter(const json& config, const char* name) {
    const auto parameters = config.value("parameters", json::object());
    if (!parameters.contains(name)) {
        fail(TRITONSERVER_ERROR_INVALID_ARG, "the model's configuration has no parameter ", name,
             ". Write it with: atrous triton --flavour cpp");
    }
    return parameters.at(name).value("string_value", std::string());
}

/// A whole number in a parameter.
int number(const json& config, const char* name) {
    const std::string text = parameter(config, name);
    if (text.empty() || text.size() > 6 ||
        !std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= '0' && c <= '9'; })) {
        fail(TRITONSERVER_ERROR_INVALID_ARG, "the parameter ", name, " must be a whole number; got '", text, "'");
    }
    return std::stoi(text);
}

int cores() {
    cpu_set_t allowed;
    return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

/// Threads of one instance: 0, which is all cores, or its share where the model has several instances.
int share_of_cores(const json& config) {
    int instances = 0;
    for (const json& group : config.value("instance_group", json::array())) instances += group.value("count", 1);
    return instances <= 1 ? 0 : std::max(1, cores() / instances);
}

Options read_options(const json& config) {
    Options options;
    options.backend = parameter(config, "backend");
    options.precision = parameter(config, "precision");
    options.crf = parameter(config, "crf") == "true";
    const int threads = number(config, "threads");
    options.threads = threads != 0 ? threads : share_of_cores(config);
    return options;
}

Bundle open_bundle(TRITONBACKEND_Model* model, const json& config) {
    TRITONBACKEND_ArtifactType type;
    const char* folder = nullptr;
    std::uint64_t version = 0;
    require(TRITONBACKEND_ModelRepository(model, &type, &folder));
    require(TRITONBACKEND_ModelVersion(model, &version));
    if (type != TRITONBACKEND_ARTIFACT_FILESYSTEM) {
        fail(TRITONSERVER_ERROR_UNSUPPORTED, "the model's files must be in a folder of this machine");
    }
    const std::string name = parameter(config, "bundle");
    if (name.empty() || name.find('/') != std::string::npos || name == "..") {
        fail(TRITONSERVER_ERROR_INVALID_ARG, "the parameter bundle must be a name in the version's folder; got '", name,
             "'");
    }
    return Bundle(std::string(folder) + "/" + std::to_string(version) + "/" + name);
}

Layout read_layout(const json& config, const atrous_bundle_info& info) {
    constexpr TRITONSERVER_DataType types[] = {TRITONSERVER_TYPE_UINT8, TRITONSERVER_TYPE_UINT16,
                                               TRITONSERVER_TYPE_FP32};
    constexpr std::int64_t bytes[] = {1, 2, 4};
    return {config.value("max_batch_size", 0) > 0,
            info.channels,
            static_cast<atrous_dtype>(info.dtype),
            types[info.dtype],
            bytes[info.dtype],
            info.class_count,
            info.has_bands != 0,
            info.label_dtype == ATROUS_UINT16};
}

}  // namespace

Model::Model(TRITONBACKEND_Model* model) : Model(model, read_config(model)) {}

Model::Model(TRITONBACKEND_Model* model, const nlohmann::json& config)
    : options_(read_options(config)),
      bundle_(open_bundle(model, config)),
      layout_(read_layout(config, bundle_.info())) {}

Segmenter Model::open(std::optional<int> gpu) const {
    Options options = options_;
    if (gpu) {
        options.device = *gpu;
    } else if (options.backend == "auto" && std::string(atrous_engines()).find("openvino") != std::string::npos) {
        options.backend = "openvino";  // the only engine on the CPU
    }
    return Segmenter(bundle_, options);
}

}  // namespace atrous::triton
