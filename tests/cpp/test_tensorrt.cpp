// The TensorRT backend on stand-ins for TensorRT and the driver: which engine is chosen, what it is given, and that
// labels are those of the pixel engine, which computes the same network.
#include <string>
#include <vector>

#include "catalogue.hpp"
#include "cuda/device.hpp"
#include "fixtures.hpp"
#include "testing.hpp"

namespace atrous::core {
Backend tensorrt_backend();
}

using fixtures::Folder;
using fixtures::Opened;
using fixtures::Picture;

namespace {

/// Before all others, as in a build with TensorRT; gone again with the object.
class WithTensorRt {
  public:
    WithTensorRt() {
        auto& backends = atrous::core::catalogue();
        backends.insert(backends.begin(), atrous::core::tensorrt_backend());
    }
    ~WithTensorRt() { atrous::core::catalogue().erase(atrous::core::catalogue().begin()); }
    WithTensorRt(const WithTensorRt&) = delete;
    WithTensorRt& operator=(const WithTensorRt&) = delete;
};

/// A bundle with the pixel engine's artifact and an engine for this device.
std::filesystem::path write_engine_bundle(const Folder& folder, const std::string& plan,
                                          const std::string& capability = "", int most = 64) {
    nlohmann::json manifest = fixtures::make_manifest("pixels");
    manifest["input"]["size"]["max"] = {most, most};
    nlohmann::json engine = fixtures::make_manifest(plan)["artifacts"][0];
    const std::string own = atrous::core::cuda::Device(0).compute_capability();
    engine["kind"] = "engine";
    engine["file"] = "model.plan";
    engine["engine"] = {{"flavor", "tensorrt"},
                        {"version", "11.4.0.12"},
                        {"compute_capability", capability.empty() ? own : capability},
                        {"cuda", "13"}};
    manifest["artifacts"].push_back(engine);
    std::filesystem::create_directories(folder.path() / "pixels.atrous");
    fixtures::write_file(folder.path() / "pixels.atrous" / "model.plan", plan);
    return fixtures::write_bundle(folder, manifest, "pixels");
}

atrous_status open_status(const std::filesystem::path& path) {
    atrous_bundle* bundle = nullptr;
    CHECK_OK(atrous_bundle_open(path.c_str(), &bundle));
    atrous_options options = ATROUS_OPTIONS_INIT;
    options.backend = "tensorrt";
    atrous_segmenter* segmenter = nullptr;
    const atrous_status status = atrous_segmenter_open(bundle, &options, &segmenter);
    CHECK((status == ATROUS_OK) == (segmenter != nullptr));
    if (segmenter != nullptr) CHECK_OK(atrous_segmenter_close(segmenter));
    CHECK_OK(atrous_bundle_close(bundle));
    return status;
}

bool says(const std::string& words) {
    return std::string(atrous_last_error()).find(words) != std::string::npos;
}

}  // namespace

TEST(tensorrt_gives_the_labels_of_the_network) {
    const WithTensorRt backend;
    const Folder folder;
    const auto path = write_engine_bundle(folder, "plan");
    for (const bool has_crf : {false, true}) {
        const Opened expected(path, has_crf, "pixels");
        const Opened opened(path, has_crf, "tensorrt");
        for (const auto& [height, width] : {std::pair{40, 56}, {16, 16}, {64, 64}, {40, 56}}) {
            Picture one(height, width);
            Picture other(height, width);
            const atrous_frame frame = one.frame();
            const atrous_frame reference = other.frame();
            for (int round = 0; round < 2; ++round) CHECK_OK(atrous_run(opened.handle, &frame, nullptr));
            CHECK_OK(atrous_run(expected.handle, &reference, nullptr));
            CHECK(one.labels == other.labels);
        }
    }
}

TEST(tensorrt_is_what_auto_takes_where_an_engine_fits) {
    const WithTensorRt backend;
    const Folder folder;
    const Opened opened(write_engine_bundle(folder, "plan"), false, "auto");
    atrous_segmenter_info info = ATROUS_SEGMENTER_INFO_INIT;
    CHECK_OK(atrous_segmenter_get_info(opened.handle, &info));
    CHECK_EQUAL(std::string(info.backend), "tensorrt");
    CHECK_EQUAL(std::string(info.artifact), "model.plan");
    CHECK_EQUAL(std::string(info.device), "stand-in driver");
    CHECK_EQUAL(std::string(info.note), "");
}

TEST(tensorrt_is_passed_over_with_the_reason) {
    const WithTensorRt backend;
    const Folder folder;
    const auto path = write_engine_bundle(folder, "plan", "1.0");
    CHECK_EQUAL(open_status(path), ATROUS_ERROR_ENGINE);
    CHECK(says("was built for compute capability 1.0"));
#if !defined(ATROUS_WITH_OPENVINO)  // OpenVINO would be next, and refuse the pixel engine's artifact
    const Opened opened(path, false, "auto");
    atrous_segmenter_info info = ATROUS_SEGMENTER_INFO_INIT;
    CHECK_OK(atrous_segmenter_get_info(opened.handle, &info));
    CHECK_EQUAL(std::string(info.backend), "pixels");
    CHECK(std::string(info.note).find("tensorrt: no engine of") == 0);
#endif
}

TEST(tensorrt_gets_no_plan_that_was_changed) {
    const WithTensorRt backend;
    const Folder folder;
    const auto path = write_engine_bundle(folder, "plan");
    fixtures::write_file(path / "model.plan", "PLAN");
    CHECK_EQUAL(open_status(path), ATROUS_ERROR_BUNDLE);
    CHECK(says("nothing was loaded"));
}

TEST(tensorrt_refusals_come_with_its_words) {
    const WithTensorRt backend;
    const Folder folder;
    CHECK_EQUAL(open_status(write_engine_bundle(folder, "no plan")), ATROUS_ERROR_ENGINE);
    CHECK(says("magic tag does not match"));
    const Opened opened(write_engine_bundle(folder, "int8 plan"), false, "tensorrt");
    Picture picture(32, 32);
    const atrous_frame frame = picture.frame();
    CHECK_EQUAL(atrous_run(opened.handle, &frame, nullptr), ATROUS_ERROR_ENGINE);
    CHECK(says("neither single nor half precision"));
}

TEST(tensorrt_profiles_are_checked) {
    const WithTensorRt backend;
    const Folder folder;
    const Opened opened(write_engine_bundle(folder, "plan", "", 96), false, "tensorrt");
    Picture picture(80, 80);
    const atrous_frame frame = picture.frame();
    CHECK_EQUAL(atrous_run(opened.handle, &frame, nullptr), ATROUS_ERROR_ENGINE);
    CHECK(says("outside of its profile: min 1x3x16x16, max 1x3x64x64"));
}
