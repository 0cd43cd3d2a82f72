#include "manifest.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "bundle_schema.hpp"
#include "failure.hpp"
#include "schema.hpp"

namespace atrous::core {
namespace {

using nlohmann::json;

constexpr const char* kSchemaVersion = "1.1";
constexpr const char* kMajorVersion = "1";

const Schema& manifest_schema() {
    static const Schema* const schema = new Schema(json::parse(kBundleSchema));
    return *schema;
}

json parse_json(const std::string& json_text) {
    try {
        return json::parse(json_text);
    } catch (const json::exception& error) {  // also of a number that no double holds
        fail(ATROUS_ERROR_BUNDLE, "manifest.json is not valid JSON: ", error.what(),
             ". The bundle is damaged: export it again.");
    }
}

void check_version(const json& data) {
    // Before the schema: a future manifest should be called that, not a list of unknown fields.
    if (!data.is_object() || !data.contains("schema_version") || !data["schema_version"].is_string()) {
        fail(ATROUS_ERROR_BUNDLE, "manifest.json has no schema_version; expected '", kSchemaVersion,
             "'. Is this an atrous bundle?");
    }
    const auto& version = data["schema_version"].get_ref<const std::string&>();
    if (version.substr(0, version.find('.')) != kMajorVersion) {
        fail(ATROUS_ERROR_BUNDLE, "manifest.json has schema_version '", version, "'; this atrous reads ", kMajorVersion,
             ".x. Upgrade atrous, or export the model again with this one.");
    }
}

/// A number that the schema calls an integer. Throws Failure where no C++ program could use it.
int to_int(const json& value) {
    const double number = value.get<double>();
    if (!(number >= std::numeric_limits<int>::min() && number <= std::numeric_limits<int>::max())) {
        fail(ATROUS_ERROR_BUNDLE, "manifest.json holds ", value.dump(), ", beyond 32 bits");
    }
    return static_cast<int>(number);
}

Size to_size(const json& value) {
    return {to_int(value[0]), to_int(value[1])};
}

template <typename Number>
std::array<Number, 3> to_triple(const json& value) {
    return {static_cast<Number>(value[0].get<double>()), static_cast<Number>(value[1].get<double>()),
            static_cast<Number>(value[2].get<double>())};
}

SizePolicy to_size_policy(const json& value) {
    const SizePolicy policy{to_size(value["min"]), to_size(value["opt"]), to_size(value["max"]),
                            to_int(value["multiple"]), to_int(value["offset"])};
    const auto in_order = [](int low, int mid, int high) { return low <= mid && mid <= high; };
    if (!in_order(policy.min.height, policy.opt.height, policy.max.height) ||
        !in_order(policy.min.width, policy.opt.width, policy.max.width)) {
        fail(ATROUS_ERROR_BUNDLE, "input sizes must be min <= opt <= max; got ", to_text(policy.min), ", ",
             to_text(policy.opt), ", ", to_text(policy.max));
    }
    return policy;
}

Bands to_bands(const json& value) {
    Bands bands{parse_sample(value["dtype"].get<std::string>()),
                value["names"].get<std::vector<std::string>>(),
                value["ranges"].get<std::vector<std::array<double, 2>>>(),
                {},
                value["crf_weights"].get<std::vector<double>>()};
    for (const json& index : value["colors"]) bands.colors.push_back(to_int(index));
    const auto count = bands.names.size();
    const auto is_ordered = [](const std::array<double, 2>& range) { return range[0] < range[1]; };
    const auto is_band = [&](int index) { return index < static_cast<int>(count); };
    if (bands.ranges.size() != count || !std::all_of(bands.ranges.begin(), bands.ranges.end(), is_ordered) ||
        bands.crf_weights.size() != bands.colors.size() ||
        !std::all_of(bands.colors.begin(), bands.colors.end(), is_band)) {
        fail(ATROUS_ERROR_BUNDLE, "each of ", count,
             " bands has a range (low, high), and each of those that are colours a weight in the CRF");
    }
    return bands;
}

InputSpec to_input(const json& value) {
    InputSpec input{to_size_policy(value["size"]),
                    value["color_order"] == "BGR",
                    value["mean"].get<std::vector<double>>(),
                    value["std"].get<std::vector<double>>(),
                    value["scale"].get<double>(),
                    parse_resize(value["resize"].get<std::string>()),
                    value["pad_value"].get<std::vector<double>>(),
                    std::nullopt};
    if (value.contains("bands")) input.bands = to_bands(value["bands"]);
    const auto channels = static_cast<std::size_t>(input.format().channels);
    if (input.mean.size() != channels || input.std.size() != channels || input.pad.size() != channels) {
        fail(ATROUS_ERROR_BUNDLE, channels,
             " channels have as many means, standard deviations and values of padding; got ", input.mean.size(), ", ",
             input.std.size(), " and ", input.pad.size());
    }
    return input;
}

std::vector<ClassInfo> to_classes(const json& value) {
    std::vector<ClassInfo> classes;
    for (const json& entry : value) {
        if (to_int(entry["id"]) != static_cast<int>(classes.size())) {
            fail(ATROUS_ERROR_BUNDLE, "class ids are the channels of the logits, so they must be 0 to ",
                 value.size() - 1, " in order; got ", entry["id"].dump(), " at ", classes.size());
        }
        classes.push_back({entry["name"].get<std::string>(), to_triple<std::uint8_t>(entry["color"])});
    }
    return classes;
}

OutputSpec to_output(const json& value, std::size_t classes) {
    OutputSpec output{to_int(value["stride"]), value["align_corners"].get<bool>(), std::nullopt};
    if (!value.contains("channels") || value["channels"]["activation"] != "sigmoid") return output;
    if (classes != 2) {
        fail(ATROUS_ERROR_BUNDLE, "a sigmoid has two classes, 0 for what it is not and 1 for what it is; got ",
             classes);
    }
    output.threshold = value["channels"]["threshold"].get<double>();
    return output;
}

std::uint64_t to_bytes(const json& value) {
    constexpr double kMaxExact = 9007199254740992.0;  // 2^53: beyond, neighbouring doubles are further apart than 1
    if (value.get<double>() > kMaxExact) fail(ATROUS_ERROR_BUNDLE, "manifest.json lists a file of impossible size");
    return value.is_number_float() ? static_cast<std::uint64_t>(value.get<double>()) : value.get<std::uint64_t>();
}

Tuning to_tuning(const json& artifact) {
    const json& tuned = artifact["tuned_for"];
    Tuning tuning{
        tuned["backend"].get<std::string>(), tuned["version"].get<std::string>(), "",
        CpuKind{tuned["cpu"]["name"].get<std::string>(), tuned["cpu"]["flags"].get<std::vector<std::string>>()}};
    const json none = json::object();
    const json& made = artifact.contains("provenance") ? artifact["provenance"] : none;
    if (made.contains("from") && made["from"].is_string()) tuning.from = made["from"].get<std::string>();
    return tuning;
}

Artifact to_artifact(const json& value) {
    Artifact artifact{value["kind"].get<std::string>(),
                      value["precision"].get<std::string>(),
                      value["file"].get<std::string>(),
                      value["sha256"].get<std::string>(),
                      to_bytes(value["bytes"]),
                      std::nullopt,
                      std::nullopt};
    if (value.contains("engine")) {
        const json& engine = value["engine"];
        artifact.engine = EngineIdentity{engine["flavor"].get<std::string>(),
                                         engine["version"].get<std::string>(),
                                         engine["compute_capability"].get<std::string>(),
                                         engine.value("cuda", ""),
                                         engine.value("hardware_compatibility", "none"),
                                         engine.value("version_compatible", false)};
    }
    if (value.contains("tuned_for")) artifact.tuned_for = to_tuning(value);
    return artifact;
}

/// The numbers of the CRF's parameters and, apart from them, its compatibility.
void read_crf(const json& data, Manifest& manifest) {
    manifest.crf.emplace();
    for (const auto& [name, value] : data.items()) {
        if (name != "compatibility") (*manifest.crf)[name] = value.get<double>();
    }
    if (!data.contains("compatibility")) return;
    const json& given = data["compatibility"];
    ClassInteraction& interaction = manifest.crf_compatibility.emplace();
    interaction.gaussian = given["gaussian"].get<std::vector<float>>();
    interaction.bilateral = given["bilateral"].get<std::vector<float>>();
    const std::size_t classes = manifest.classes.size();
    bool is_square = given["matrix"].size() == classes;
    for (const json& row : given["matrix"]) {
        is_square = is_square && row.size() == classes;
        for (const json& value : row) interaction.matrix.push_back(value.get<float>());
    }
    if (!is_square || interaction.gaussian.size() != classes || interaction.bilateral.size() != classes) {
        fail(ATROUS_ERROR_BUNDLE, "the compatibility of the bundle's CRF is not for its ", classes,
             " classes; learn it again for this network");
    }
}

}  // namespace

PixelScaling InputSpec::scaling(bool is_bgr_image) const {
    PixelScaling scaling;
    for (std::size_t c = 0; c < mean.size(); ++c) {
        scaling.mean.push_back(static_cast<float>(mean[c]) / static_cast<float>(scale));
        scaling.std.push_back(static_cast<float>(std[c]) / static_cast<float>(scale));
        // In the image's order of channels, as pixels are.
        scaling.pad_value.push_back(static_cast<float>(pad[is_bgr_image ? 2 - c : c]));
    }
    scaling.swap_rgb = is_bgr != is_bgr_image;
    scaling.sample = format().sample;
    return scaling;
}

PixelFormat InputSpec::format() const {
    if (!bands) return {};
    return {static_cast<int>(bands->names.size()), bands->sample};
}

std::optional<BandColors> InputSpec::crf_colors() const {
    if (!bands) return std::nullopt;
    BandColors colors{format(), {-1, -1, -1}, {}, {}};
    const std::size_t chosen = bands->colors.size();
    for (std::size_t c = 0; c < 3; ++c) {
        const std::size_t at = chosen == 1 ? 0 : c;  // one band is grey
        if (at >= chosen) continue;
        const auto [low, high] = bands->ranges[bands->colors[at]];
        colors.band[c] = bands->colors[at];
        colors.low[c] = static_cast<float>(low);
        colors.factor[c] = static_cast<float>(255.0 / (high - low) * bands->crf_weights[at]);
    }
    return colors;
}

int Manifest::channels() const {
    if (output.threshold) return 1;
    if (classes.size() == 1) {
        fail(ATROUS_ERROR_BUNDLE, "'", name, "' has one channel and one class, '", classes[0].name,
             "': a softmax over one channel is 1 everywhere, so every label would be 0. Export or pack the network "
             "again with two classes, what it is not and what it is");
    }
    return static_cast<int>(classes.size());
}

Manifest parse_manifest(const std::string& json_text) {
    const json data = parse_json(json_text);
    check_version(data);
    if (const auto violation = manifest_schema().check(data)) {
        fail(ATROUS_ERROR_BUNDLE, "manifest.json (schema ", data["schema_version"].get<std::string>(),
             ", this atrous knows ", kSchemaVersion, ") does not follow its schema at ",
             violation->place.empty() ? "the top level" : violation->place, ": ", violation->what);
    }
    Manifest manifest;
    manifest.name = data["name"].get<std::string>();
    manifest.created_by = data["created_by"].get<std::string>();
    manifest.license = data.value("license", "");
    manifest.schema_version = data["schema_version"].get<std::string>();
    manifest.classes = to_classes(data["classes"]);
    if (data.contains("ignore_index")) manifest.ignore_index = to_int(data["ignore_index"]);
    manifest.input = to_input(data["input"]);
    manifest.output = to_output(data["output"], manifest.classes.size());
    if (data.contains("crf")) read_crf(data["crf"], manifest);
    for (const json& entry : data["artifacts"]) manifest.artifacts.push_back(to_artifact(entry));
    return manifest;
}

}  // namespace atrous::core
