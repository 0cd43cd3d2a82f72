// What a runtime must know to turn an image into labels: manifest.json of a bundle (docs/bundle.md).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "crf/csrc/compatibility.hpp"
#include "native/cpu.hpp"
#include "runtime/csrc/image.hpp"

namespace atrous::core {

using atrous::Size;
using atrous::SizePolicy;

/// One class; its index in the manifest is its value in the labels.
struct ClassInfo {
    std::string name;
    std::array<std::uint8_t, 3> color;  ///< RGB
};

/// What the channels of images are where they are not RGB in bytes.
struct Bands {
    Sample sample;
    std::vector<std::string> names;
    std::vector<std::array<double, 2>> ranges;  ///< lowest and highest value of each
    std::vector<int> colors;                    ///< which bands make the picture, one to three
    std::vector<double> crf_weights;            ///< of each of those
};

/// How an image becomes the network's input: (pixel · scale − mean) / std.
struct InputSpec {
    SizePolicy size;
    bool is_bgr;                    ///< the network's channels are B, G, R
    std::vector<double> mean, std;  ///< in the order of the network's channels
    double scale;
    Resize resize;            ///< how an image is fitted to the sizes
    std::vector<double> pad;  ///< RGB, or a value of each band
    std::optional<Bands> bands;

    PixelFormat format() const;
    /// The same for pixels, whose first channel is B with `is_bgr_image`.
    PixelScaling scaling(bool is_bgr_image) const;
    /// The colours that the CRF compares; none of RGB, which are themselves.
    std::optional<BandColors> crf_colors() const;
};

/// Where the logits lie, and what their channels are.
struct OutputSpec {
    int stride;
    bool align_corners;
    std::optional<double> threshold;  ///< of one channel under a sigmoid; none: a softmax over the classes
};

/// What an engine was built for; it is deserialized only where all of this matches.
struct EngineIdentity {
    std::string flavor, version, compute_capability;
    std::string cuda;                    ///< what its TensorRT was built for, "13", or empty
    std::string hardware_compatibility;  ///< "none", "same-compute-capability" or "ampere+"
    bool version_compatible;             ///< later versions of the same major number run it
};

/// Where a tuned graph was measured to be faster than the one that it was rewritten from.
struct Tuning {
    std::string backend, version, from;  ///< from: the SHA-256 of that graph
    CpuKind cpu;
};

/// One file that computes the network.
struct Artifact {
    std::string kind, precision, file, sha256;
    std::uint64_t bytes;
    std::optional<EngineIdentity> engine;
    std::optional<Tuning> tuned_for;
};

struct Manifest {
    std::string name, created_by, license, schema_version;
    std::vector<ClassInfo> classes;
    std::optional<int> ignore_index;
    InputSpec input;
    OutputSpec output;
    std::optional<std::map<std::string, double>> crf;   ///< its numbers
    std::optional<ClassInteraction> crf_compatibility;  ///< `compatibility` of `crf`
    std::vector<Artifact> artifacts;

    /// Of the logits. Throws Failure(BUNDLE) for a softmax over one class, which would be 1 everywhere.
    int channels() const;
    /// Of a label.
    int label_bytes() const { return classes.size() > 256 ? 2 : 1; }
};

/// Parses and validates the text of a manifest.json.
/// Throws Failure(BUNDLE): not JSON, another major version, or not what the schema says.
Manifest parse_manifest(const std::string& json_text);

}  // namespace atrous::core
