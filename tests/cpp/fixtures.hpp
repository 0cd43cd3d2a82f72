// Bundles in a temporary folder, and an engine without a library behind it: logits are every stride-th pixel, so that
// a red pixel is class 0, a green one 1, a blue one 2.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "atrous/atrous.h"

namespace fixtures {

/// A folder that goes with the object.
class Folder {
  public:
    Folder();
    ~Folder();
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

void write_file(const std::filesystem::path& path, const std::string& content);

/// The manifest of a bundle whose one artifact, `model.onnx`, is `content`: 3 classes, stride 8, 16x16 to 64x64.
nlohmann::json make_manifest(const std::string& content);

/// Writes such a bundle. `content` tells the pixel engine what to do: "pixels", or a way to fail.
std::filesystem::path write_bundle(const Folder& folder, const std::string& content = "pixels");
std::filesystem::path write_bundle(const Folder& folder, const nlohmann::json& manifest, const std::string& content);

/// Makes the engine known as "pixels".
void add_pixel_engine();

/// An opened segmenter with the bundle closed behind it.
class Opened {
  public:
    explicit Opened(const std::filesystem::path& path, bool has_crf = false, const char* backend = "pixels",
                    const char* crf_storage = nullptr);
    ~Opened();
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;
    atrous_segmenter* handle = nullptr;
};

/// A picture in blocks of 8×8 pixels of one colour each, and what its labels are.
struct Picture {
    Picture(int height, int width, unsigned seed = 0);

    int height, width;
    std::vector<std::uint8_t> pixels;    ///< [height, width, 3]
    std::vector<std::uint8_t> expected;  ///< the class at each block's first pixel; only compared there
    std::vector<std::uint8_t> labels;

    atrous_frame frame();
    bool has_expected_labels() const;
};

}  // namespace fixtures
