// OpenVINO against the pixel engine, which computes the same network.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "fixtures.hpp"
#include "onnx_file.hpp"
#include "testing.hpp"

using fixtures::Folder;
using fixtures::Opened;
using fixtures::Picture;

namespace {

std::vector<std::uint8_t> label(const Opened& opened, Picture& picture) {
    const atrous_frame frame = picture.frame();
    CHECK_OK(atrous_run(opened.handle, &frame, nullptr));
    return picture.labels;
}

}  // namespace

TEST(openvino_computes_the_network) {
    const Folder folder;
    const Folder other;
    const Opened expected(fixtures::write_bundle(folder));
    const Opened opened(fixtures::write_bundle(other, fixtures::make_onnx()), false, "openvino");
    // More shapes than are kept compiled, and the first again.
    for (const int side : {16, 24, 32, 40, 48, 56, 64, 16, 150}) {
        Picture picture(side, 50);
        CHECK(label(opened, picture) == label(expected, picture));
    }
}

TEST(openvino_serves_threads) {
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder, fixtures::make_onnx()), false, "auto");
    atrous_segmenter_info info = ATROUS_SEGMENTER_INFO_INIT;
    CHECK_OK(atrous_segmenter_get_info(opened.handle, &info));
    CHECK_EQUAL(std::string(info.backend), "openvino");
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            for (int round = 0; round < 4; ++round) {
                Picture picture(40, 48, t);
                const atrous_frame frame = picture.frame();
                const atrous_status status = atrous_run(opened.handle, &frame, nullptr);
                if (status != ATROUS_OK || !picture.has_expected_labels()) ++wrong;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK_EQUAL(wrong.load(), 0);
}

TEST(openvino_refuses_what_is_no_graph) {
    const Folder folder;
    atrous_bundle* bundle = nullptr;
    CHECK_OK(atrous_bundle_open(fixtures::write_bundle(folder, "pixels").c_str(), &bundle));
    atrous_segmenter* segmenter = nullptr;
    atrous_options options = ATROUS_OPTIONS_INIT;
    options.backend = "openvino";
    CHECK_EQUAL(atrous_segmenter_open(bundle, &options, &segmenter), ATROUS_ERROR_ENGINE);
    CHECK(segmenter == nullptr);
    CHECK_OK(atrous_bundle_close(bundle));
}
