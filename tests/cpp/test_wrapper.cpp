// The C++ face: what it adds to the C interface is ownership, vectors and exceptions.
#include <atrous/atrous.hpp>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "fixtures.hpp"
#include "testing.hpp"

using fixtures::Folder;
using fixtures::Picture;

namespace {

atrous::Options pixels() {
    atrous::Options options;
    options.backend = "pixels";
    return options;
}

atrous::Image image_of(const Picture& picture) {
    return {picture.pixels.data(), picture.height, picture.width};
}

template <typename Call>
atrous_status status_of(const Call& call) {
    try {
        call();
        return ATROUS_OK;
    } catch (const atrous::Error& error) {
        CHECK(std::string(error.what()) == atrous_last_error());
        return error.status();
    }
}

}  // namespace

TEST(wrapper_segments) {
    const Folder folder;
    const atrous::Segmenter segmenter(fixtures::write_bundle(folder).string(), pixels());
    Picture picture(40, 50);
    const atrous::Result result = segmenter(image_of(picture), true);
    picture.labels = result.labels;
    CHECK(picture.has_expected_labels());
    CHECK_EQUAL(result.height * 1000 + result.width, 40050);
    CHECK_EQUAL(result.probabilities.size(), 3U * 40U * 50U);
    CHECK(result.timings.total_ms > 0);

    atrous::Result again;
    segmenter.run(image_of(picture), again);
    const std::uint8_t* const memory = again.labels.data();
    segmenter.run(image_of(picture), again);
    CHECK(again.labels == result.labels);
    CHECK(again.labels.data() == memory);
    CHECK(again.probabilities.empty());
    CHECK(segmenter.run(picture.frame()).total_ms > 0);
}

TEST(wrapper_takes_bgr_and_padded_rows) {
    const Folder folder;
    const atrous::Segmenter segmenter(fixtures::write_bundle(folder).string(), pixels());
    Picture picture(16, 24);
    std::vector<std::uint8_t> rows(16 * 100);
    for (int y = 0; y < 16; ++y) {
        for (int x = 0; x < 24; ++x) {
            for (int c = 0; c < 3; ++c) rows[y * 100 + 3 * x + c] = picture.pixels[(y * 24 + x) * 3 + 2 - c];
        }
    }
    picture.labels = segmenter({rows.data(), 16, 24, 100, true}).labels;
    CHECK(picture.has_expected_labels());
}

TEST(wrapper_describes) {
    const Folder folder;
    const atrous::Bundle bundle(fixtures::write_bundle(folder).string());
    bundle.check_files();
    CHECK_EQUAL(bundle.classes()[2].name, "blue");
    CHECK_EQUAL(int{bundle.classes()[2].color[2]}, 255);
    CHECK_EQUAL(bundle.info().stride, 8);
    const atrous::Segmenter segmenter(bundle, pixels());
    CHECK_EQUAL(std::string(segmenter.info().backend), "pixels");
    CHECK_EQUAL(segmenter.bundle().info().class_count, 3);
}

TEST(wrapper_jobs_own_their_results) {
    const Folder folder;
    const atrous::Segmenter segmenter(fixtures::write_bundle(folder).string(), pixels());
    Picture picture(60, 60);
    atrous::Job job = segmenter.submit(image_of(picture), true);
    atrous::Job moved = std::move(job);
    while (!moved.wait_for(1)) {
    }
    const atrous::Result result = moved.get();
    picture.labels = result.labels;
    CHECK(picture.has_expected_labels());
    CHECK_EQUAL(result.probabilities.size(), 3U * 60U * 60U);
    for (int i = 0; i < 20; ++i) segmenter.submit(image_of(picture));  // results that nobody wants
}

TEST(wrapper_throws) {
    const Folder folder;
    const std::string path = fixtures::write_bundle(folder).string();
    CHECK_EQUAL(status_of([&] { atrous::Bundle(path + "x"); }), ATROUS_ERROR_BUNDLE);
    CHECK_EQUAL(status_of([&] { atrous::Segmenter(path, {"nonsense"}); }), ATROUS_ERROR_ARGUMENT);
    const atrous::Segmenter segmenter(path, pixels());
    Picture picture(20, 20);
    CHECK_EQUAL(status_of([&] { segmenter({picture.pixels.data(), 20, 20, 59}); }), ATROUS_ERROR_ARGUMENT);
    CHECK_EQUAL(status_of([&] { segmenter({nullptr, 20, 20}); }), ATROUS_ERROR_ARGUMENT);
    try {
        segmenter({picture.pixels.data(), 1 << 20, 1 << 20});
        CHECK(false);
    } catch (const atrous::Error& error) {
        CHECK_EQUAL(error.status(), ATROUS_ERROR_ARGUMENT);
    }
    const Folder other;
    const atrous::Segmenter broken(fixtures::write_bundle(other, "throw").string(), pixels());
    CHECK_EQUAL(status_of([&] { broken(image_of(picture)); }), ATROUS_ERROR_ENGINE);
    CHECK_EQUAL(status_of([&] { broken.submit(image_of(picture)).get(); }), ATROUS_ERROR_ENGINE);
}
