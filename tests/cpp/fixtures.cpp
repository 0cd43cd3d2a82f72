#include "fixtures.hpp"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>

#include "catalogue.hpp"
#include "cpu_pipeline.hpp"
#include "failure.hpp"
#include "sha256.hpp"
#include "testing.hpp"

namespace fixtures {
namespace {

using atrous::core::Logits;
using atrous::core::Size;

constexpr int kStride = 8;

class PixelSession : public atrous::core::Session {
  public:
    explicit PixelSession(std::string mode) : mode_(std::move(mode)) {}

    float* input(const Size& size) override {
        size_ = size;
        input_.resize(static_cast<std::size_t>(size.height) * size.width * 3);
        return input_.data();
    }

    Logits run() override {
        if (mode_ == "throw") throw std::runtime_error("the engine broke");
        if (mode_ == "throw an int") throw 7;
        if (mode_ == "no memory") throw std::bad_alloc();
        const int stride = mode_ == "wrong stride" ? 2 * kStride : kStride;
        const int channels = mode_ == "one channel" ? 1 : mode_ == "wrong classes" ? 2 : 3;
        const Size coarse{size_.height / stride, size_.width / stride};
        logits_.clear();
        for (int c = 0; c < channels; ++c) {
            for (int y = 0; y < coarse.height; ++y) {
                for (int x = 0; x < coarse.width; ++x) {
                    const int row = c * size_.height + y * stride;
                    logits_.push_back(input_[static_cast<std::size_t>(row) * size_.width + x * stride]);
                }
            }
        }
        // Red above or below the middle, so that both labels occur.
        if (mode_ == "one channel") {
            for (float& logit : logits_) logit -= 100;
        }
        if (mode_ == "nan") logits_.back() = std::numeric_limits<float>::quiet_NaN();
        return {logits_.data(), channels, coarse};
    }

  private:
    std::string mode_;
    Size size_;
    std::vector<float> input_, logits_;
};

class PixelEngine : public atrous::core::Engine {
  public:
    explicit PixelEngine(std::string mode) : mode_(std::move(mode)) {}
    std::unique_ptr<atrous::core::Session> make_session() override { return std::make_unique<PixelSession>(mode_); }

  private:
    std::string mode_;
};

}  // namespace

Folder::Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "atrous-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make " + name);
    path_ = name;
}

Folder::~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

void write_file(const std::filesystem::path& path, const std::string& content) {
    std::ofstream file(path, std::ios::binary);
    file << content;
    if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

nlohmann::json make_manifest(const std::string& content) {
    atrous::core::Sha256 digest;
    digest.update(content.data(), content.size());
    nlohmann::json manifest = nlohmann::json::parse(R"({
        "schema_version": "1.0", "name": "pixels", "created_by": "a test", "ignore_index": 255,
        "classes": [{"id": 0, "name": "red", "color": [255, 0, 0]}, {"id": 1, "name": "green", "color": [0, 255, 0]},
                    {"id": 2, "name": "blue", "color": [0, 0, 255]}],
        "input": {"color_order": "RGB", "mean": [0, 0, 0], "std": [1, 1, 1], "scale": 1, "resize": "none",
                  "pad_value": [0, 0, 0],
                  "size": {"min": [16, 16], "opt": [32, 48], "max": [64, 64], "multiple": 8, "offset": 0}},
        "output": {"head": "logits", "stride": 8, "align_corners": false},
        "crf": {"bilateral_weight": 4, "bilateral_sigma_xy_px": 67, "bilateral_sigma_rgb": 3, "gaussian_weight": 3,
                "gaussian_sigma_xy_px": 1},
        "artifacts": [{"kind": "onnx", "precision": "fp32", "file": "model.onnx"}],
        "verification": []
    })");
    manifest["artifacts"][0]["sha256"] = digest.hex();
    manifest["artifacts"][0]["bytes"] = content.size();
    return manifest;
}

std::filesystem::path write_bundle(const Folder& folder, const nlohmann::json& manifest, const std::string& content) {
    const std::filesystem::path path = folder.path() / "pixels.atrous";
    std::filesystem::create_directories(path);
    write_file(path / "model.onnx", content);
    write_file(path / "manifest.json", manifest.dump());
    return path;
}

std::filesystem::path write_bundle(const Folder& folder, const std::string& content) {
    return write_bundle(folder, make_manifest(content), content);
}

void add_pixel_engine() {
    using namespace atrous::core;
    catalogue().push_back({"pixels", [](std::shared_ptr<const Bundle> bundle, const Options& options) {
                               const Artifact& artifact = find_onnx(*bundle, options.precision, "pixels");
                               auto engine = std::make_unique<PixelEngine>(bundle->read(artifact));
                               return make_cpu_pipeline(bundle, std::move(engine), options,
                                                        {"pixels", "CPU", artifact.precision, artifact.file, ""});
                           }});
}

Opened::Opened(const std::filesystem::path& path, bool has_crf, const char* backend, const char* crf_storage) {
    atrous_bundle* bundle = nullptr;
    CHECK_OK(atrous_bundle_open(path.c_str(), &bundle));
    atrous_options options = ATROUS_OPTIONS_INIT;
    options.backend = backend;
    options.crf = has_crf ? 1 : 0;
    options.crf_storage = crf_storage;
    options.threads = 2;
    const atrous_status status = atrous_segmenter_open(bundle, &options, &handle);
    atrous_bundle_close(bundle);
    CHECK_OK(status);
}

Opened::~Opened() {
    atrous_segmenter_close(handle);
}

Picture::Picture(int height, int width, unsigned seed)
    : height(height), width(width), pixels(static_cast<std::size_t>(height) * width * 3) {
    std::mt19937 random(seed);
    const int columns = (width + kStride - 1) / kStride;
    std::vector<int> classes(static_cast<std::size_t>((height + kStride - 1) / kStride) * columns);
    for (int& each : classes) each = static_cast<int>(random() % 3);
    expected.resize(static_cast<std::size_t>(height) * width);
    labels.resize(expected.size());
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const std::size_t at = static_cast<std::size_t>(y) * width + x;
            expected[at] = static_cast<std::uint8_t>(classes[y / kStride * columns + x / kStride]);
            pixels[at * 3 + expected[at]] = 200;
        }
    }
}

atrous_frame Picture::frame() {
    atrous_frame frame = ATROUS_FRAME_INIT;
    frame.height = height;
    frame.width = width;
    frame.pixels = pixels.data();
    frame.labels = labels.data();
    return frame;
}

bool Picture::has_expected_labels() const {
    // In the middle of a block, where its own logit outweighs the neighbours'.
    for (int y = kStride / 2; y < height; y += kStride) {
        for (int x = kStride / 2; x < width; x += kStride) {
            const std::size_t at = static_cast<std::size_t>(y) * width + x;
            if (labels[at] != expected[at]) return false;
        }
    }
    return true;
}

}  // namespace fixtures
