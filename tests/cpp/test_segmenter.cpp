// Segmenters: labels, jobs, threads, misuse and failing engines, through the C interface.
#include <atomic>
#include <climits>
#include <cmath>
#include <cstddef>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "crf_params.hpp"
#include "fixtures.hpp"
#include "testing.hpp"

using fixtures::Folder;
using fixtures::Opened;
using fixtures::Picture;

namespace {

atrous_status run(atrous_segmenter* segmenter, Picture& picture) {
    const atrous_frame frame = picture.frame();
    return atrous_run(segmenter, &frame, nullptr);
}

atrous_status run_with(atrous_segmenter* segmenter, Picture& picture, void (*change)(atrous_frame&)) {
    atrous_frame frame = picture.frame();
    change(frame);
    return atrous_run(segmenter, &frame, nullptr);
}

}  // namespace

TEST(segmenter_labels_pictures_of_any_size) {
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder));
    for (const auto& [height, width] : {std::pair{32, 48}, {8, 8}, {1, 1}, {17, 33}, {64, 64}, {65, 40}, {200, 130}}) {
        Picture picture(height, width);
        CHECK_OK(run(opened.handle, picture));
        CHECK(picture.has_expected_labels());
    }
}

TEST(segmenter_gives_probabilities_and_timings) {
    const Folder folder;
    for (const bool has_crf : {false, true}) {
        const Opened opened(fixtures::write_bundle(folder), has_crf);
        Picture picture(40, 100);
        std::vector<float> probabilities(3 * 40 * 100, -1.0f);
        atrous_frame frame = picture.frame();
        frame.probabilities = probabilities.data();
        atrous_timings timings = ATROUS_TIMINGS_INIT;
        CHECK_OK(atrous_run(opened.handle, &frame, &timings));
        CHECK(picture.has_expected_labels());
        for (int i = 0; i < 40 * 100; ++i) {
            const float sum = probabilities[i] + probabilities[4000 + i] + probabilities[8000 + i];
            CHECK(std::fabs(sum - 1.0f) < 1e-5f);
        }
        CHECK(timings.total_ms > 0 && timings.preprocess_ms > 0 && timings.postprocess_ms > 0);
        CHECK((timings.crf_ms > 0) == has_crf);
        CHECK(timings.preprocess_ms + timings.inference_ms + timings.postprocess_ms + timings.crf_ms <=
              timings.total_ms);
    }
}

TEST(segmenter_says_what_runs) {
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder), true);
    atrous_segmenter_info info = ATROUS_SEGMENTER_INFO_INIT;
    CHECK_OK(atrous_segmenter_get_info(opened.handle, &info));
    CHECK_EQUAL(std::string(info.backend), "pixels");
    CHECK_EQUAL(std::string(info.device), "CPU");
    CHECK_EQUAL(std::string(info.precision), "fp32");
    CHECK_EQUAL(std::string(info.artifact), "model.onnx");
    CHECK_EQUAL(info.crf, 1);
}

TEST(segmenter_refuses_frames_that_cannot_be) {
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder));
    atrous_segmenter* const segmenter = opened.handle;
    Picture picture(40, 70);
    const auto refuses = [&](void (*change)(atrous_frame&), atrous_status status = ATROUS_ERROR_ARGUMENT) {
        CHECK_EQUAL(run_with(segmenter, picture, change), status);
    };
    CHECK_EQUAL(atrous_run(segmenter, nullptr, nullptr), ATROUS_ERROR_ARGUMENT);
    refuses([](atrous_frame& f) { f.pixels = nullptr; });
    refuses([](atrous_frame& f) { f.labels = nullptr; });
    refuses([](atrous_frame& f) { f.height = 0; });
    refuses([](atrous_frame& f) { f.width = -1; });
    refuses([](atrous_frame& f) { f.height = 65537; });
    refuses([](atrous_frame& f) { f.width = INT_MAX; });
    refuses([](atrous_frame& f) { f.pixel_row_bytes = 3 * 70 - 1; });
    refuses([](atrous_frame& f) { f.pixel_row_bytes = -300; });
    refuses([](atrous_frame& f) { f.pixel_row_bytes = INT64_MAX; });
    refuses([](atrous_frame& f) { f.label_row_bytes = 69; });
    refuses([](atrous_frame& f) { f.label_row_bytes = INT64_MAX / 39; });
    refuses([](atrous_frame& f) { f.format = 2; });
    refuses([](atrous_frame& f) { f.memory = 7; });
    refuses([](atrous_frame& f) { f.reserved = 1; });
    refuses([](atrous_frame& f) { f.struct_size = 4; });
    refuses([](atrous_frame& f) { f.stream = &f; });
    refuses([](atrous_frame& f) { f.memory = ATROUS_DEVICE; }, ATROUS_ERROR_UNAVAILABLE);
    atrous_timings timings = {};
    const atrous_frame frame = picture.frame();
    CHECK_EQUAL(atrous_run(segmenter, &frame, &timings), ATROUS_ERROR_ARGUMENT);  // without its size
    CHECK_OK(run(segmenter, picture));
    CHECK(picture.has_expected_labels());
}

TEST(segmenter_survives_random_frames) {
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder));
    constexpr int kRoom = 300;
    std::vector<std::uint8_t> pixels(kRoom * kRoom * 3, 9);
    std::vector<std::uint8_t> labels(kRoom * kRoom);
    const std::int32_t sides[] = {INT_MIN, -1, 0, 1, 2, 7, 8, 16, 63, 64, 65, 100, 65537, INT_MAX};
    const std::int64_t pitches[] = {INT64_MIN, -1, 0, 1, 3, 191, 192, 300, 900, INT64_MAX};
    std::mt19937 random(5);
    int ran = 0;
    for (int round = 0; round < 3000; ++round) {
        atrous_frame frame = ATROUS_FRAME_INIT;
        frame.height = sides[random() % std::size(sides)];
        frame.width = sides[random() % std::size(sides)];
        frame.pixel_row_bytes = pitches[random() % std::size(pitches)];
        frame.label_row_bytes = pitches[random() % std::size(pitches)];
        frame.format = static_cast<std::int32_t>(random() % 3);
        // Only what the test has room for may be let through; the rest must be refused by its numbers.
        const bool has_room = frame.pixel_row_bytes <= 3 * kRoom && frame.label_row_bytes <= kRoom;
        frame.pixels = has_room ? pixels.data() : nullptr;
        frame.labels = labels.data();
        const atrous_status status = atrous_run(opened.handle, &frame, nullptr);
        CHECK(status == ATROUS_OK || status == ATROUS_ERROR_ARGUMENT);
        ran += status == ATROUS_OK ? 1 : 0;
    }
    CHECK(ran > 100);
}

TEST(segmenter_refuses_options_that_cannot_be) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    atrous_bundle* bundle = nullptr;
    CHECK_OK(atrous_bundle_open(path.c_str(), &bundle));
    const auto refuses = [&](void (*change)(atrous_options&), atrous_status status = ATROUS_ERROR_ARGUMENT) {
        atrous_options options = ATROUS_OPTIONS_INIT;
        options.backend = "pixels";
        change(options);
        atrous_segmenter* segmenter = nullptr;
        CHECK_EQUAL(atrous_segmenter_open(bundle, &options, &segmenter), status);
        CHECK(segmenter == nullptr);
    };
    refuses([](atrous_options& o) { o.backend = "tensorflow"; });
    refuses([](atrous_options& o) { o.precision = "fp8"; });
    refuses([](atrous_options& o) { o.precision = "int8"; }, ATROUS_ERROR_ENGINE);  // the bundle has none
    refuses([](atrous_options& o) { o.threads = -1; });
    refuses([](atrous_options& o) { o.device = -1; });
    refuses([](atrous_options& o) { o.crf = 2; });
    refuses([](atrous_options& o) { o.crf_iterations = -2; }, ATROUS_ERROR_CRF);
    refuses([](atrous_options& o) { o.crf_storage = "fp16"; }, ATROUS_ERROR_CRF);
    for (const float floor : {-0.1f, 0.02f, NAN}) {
        atrous_options options = ATROUS_OPTIONS_INIT;
        options.backend = "pixels";
        options.crf = 1;
        options.crf_class_floor = floor;
        atrous_segmenter* segmenter = nullptr;
        CHECK_EQUAL(atrous_segmenter_open(bundle, &options, &segmenter), ATROUS_ERROR_CRF);
    }
    refuses([](atrous_options& o) { o.struct_size = 0; });
    CHECK_EQUAL(atrous_segmenter_open(bundle, nullptr, nullptr), ATROUS_ERROR_ARGUMENT);
    CHECK_OK(atrous_bundle_close(bundle));
}

TEST(segmenter_structs_may_grow) {
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder));
    struct Newer {
        atrous_frame known;
        std::int64_t unknown;
    };
    Picture picture(16, 16);
    Newer newer{picture.frame(), 0};
    newer.known.struct_size = sizeof newer;
    CHECK_OK(atrous_run(opened.handle, &newer.known, nullptr));
    newer.unknown = 1;
    CHECK_EQUAL(atrous_run(opened.handle, &newer.known, nullptr), ATROUS_ERROR_ARGUMENT);
}

TEST(segmenter_opens_with_the_options_of_older_programs) {
    const Folder folder;
    atrous_bundle* bundle = nullptr;
    CHECK_OK(atrous_bundle_open(fixtures::write_bundle(folder).c_str(), &bundle));
    atrous_options options = ATROUS_OPTIONS_INIT;
    options.backend = "pixels";
    options.crf = 1;
    options.struct_size = offsetof(atrous_options, crf_storage);
    options.crf_storage = "beyond what such a program has";
    atrous_segmenter* segmenter = nullptr;
    CHECK_OK(atrous_segmenter_open(bundle, &options, &segmenter));
    CHECK_OK(atrous_segmenter_close(segmenter));
    CHECK_OK(atrous_bundle_close(bundle));
}

TEST(segmenter_refuses_unusable_crf_parameters_only_where_they_are_used) {
    const Folder folder;
    for (const auto& [name, value] :
         {std::pair{"bilateral_sigma_rgb", 0.0}, {"surplus", 1.0}, {"unary_temperature", 0.0}}) {
        nlohmann::json manifest = fixtures::make_manifest("pixels");
        manifest["crf"][name] = value;
        const auto path = fixtures::write_bundle(folder, manifest, "pixels");
        const Opened plain(path);
        atrous_bundle* bundle = nullptr;
        CHECK_OK(atrous_bundle_open(path.c_str(), &bundle));
        atrous_options options = ATROUS_OPTIONS_INIT;
        options.backend = "pixels";
        options.crf = 1;
        atrous_segmenter* segmenter = nullptr;
        CHECK_EQUAL(atrous_segmenter_open(bundle, &options, &segmenter), ATROUS_ERROR_CRF);
        CHECK_OK(atrous_bundle_close(bundle));
    }
}

TEST(segmenter_takes_the_bundles_iterations_unless_told) {
    const Folder folder;
    nlohmann::json manifest = fixtures::make_manifest("pixels");
    CHECK_EQUAL(atrous::core::crf_iterations_of(atrous::core::parse_manifest(manifest.dump()), -1), 10);
    manifest["crf"]["iterations"] = 3;
    manifest["crf"]["unary_temperature"] = 2.5;
    const atrous::core::Manifest parsed = atrous::core::parse_manifest(manifest.dump());
    CHECK_EQUAL(atrous::core::crf_iterations_of(parsed, -1), 3);
    CHECK_EQUAL(atrous::core::crf_iterations_of(parsed, 0), 0);
    CHECK_EQUAL(atrous::core::crf_params_of(parsed).unary_temperature, 2.5);
    CHECK_EQUAL(atrous::core::crf_params_of(parsed).gaussian_weight, 3.0);
}

TEST(segmenter_reports_engines_that_fail) {
    for (const auto& [mode, status] : {std::pair{"throw", ATROUS_ERROR_ENGINE},
                                       {"throw an int", ATROUS_ERROR_ENGINE},
                                       {"nan", ATROUS_ERROR_ENGINE},
                                       {"wrong classes", ATROUS_ERROR_ENGINE},
                                       {"no memory", ATROUS_ERROR_MEMORY}}) {
        const Folder folder;
        const Opened opened(fixtures::write_bundle(folder, mode));
        Picture picture(30, 30);
        CHECK_EQUAL(run(opened.handle, picture), status);
        CHECK_EQUAL(run(opened.handle, picture), status);  // as often as it is asked
        atrous_job* job = nullptr;
        const atrous_frame frame = picture.frame();
        CHECK_OK(atrous_submit(opened.handle, &frame, &job));
        CHECK_EQUAL(atrous_job_wait(job, -1, nullptr), status);
        CHECK_OK(atrous_job_close(job));
    }
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder, "wrong stride"));
    Picture picture(30, 100);
    CHECK_EQUAL(run(opened.handle, picture), ATROUS_ERROR_ENGINE);  // seen where tiles must meet
}

TEST(segmenter_refuses_a_picture_that_cannot_be_tiled) {
    const Folder folder;
    nlohmann::json manifest = fixtures::make_manifest("pixels");
    manifest["input"]["size"] = {
        {"min", {20, 20}}, {"opt", {20, 20}}, {"max", {20, 20}}, {"multiple", 4}, {"offset", 0}};
    const Opened opened(fixtures::write_bundle(folder, manifest, "pixels"));
    Picture picture(30, 30);
    CHECK_EQUAL(run(opened.handle, picture), ATROUS_ERROR_SHAPE);
}

TEST(segmenter_handles_are_checked) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    atrous_bundle* bundle = nullptr;
    CHECK_OK(atrous_bundle_open(path.c_str(), &bundle));
    atrous_options options = ATROUS_OPTIONS_INIT;
    options.backend = "pixels";
    atrous_segmenter* segmenter = nullptr;
    CHECK_OK(atrous_segmenter_open(bundle, &options, &segmenter));
    CHECK_OK(atrous_bundle_close(bundle));
    CHECK_EQUAL(atrous_bundle_close(bundle), ATROUS_ERROR_HANDLE);
    CHECK_EQUAL(atrous_bundle_check(bundle), ATROUS_ERROR_HANDLE);
    Picture picture(16, 16);
    CHECK_OK(run(segmenter, picture));  // it keeps what it needs of the bundle
    CHECK_EQUAL(run(reinterpret_cast<atrous_segmenter*>(bundle), picture), ATROUS_ERROR_HANDLE);
    CHECK_EQUAL(run(nullptr, picture), ATROUS_ERROR_HANDLE);
    int somewhere = 0;
    CHECK_EQUAL(run(reinterpret_cast<atrous_segmenter*>(&somewhere), picture), ATROUS_ERROR_HANDLE);
    CHECK_OK(atrous_segmenter_close(segmenter));
    CHECK_EQUAL(run(segmenter, picture), ATROUS_ERROR_HANDLE);
    CHECK_EQUAL(atrous_segmenter_close(segmenter), ATROUS_ERROR_HANDLE);
    CHECK_EQUAL(atrous_segmenter_close(nullptr), ATROUS_ERROR_HANDLE);
    CHECK_EQUAL(atrous_job_close(nullptr), ATROUS_ERROR_HANDLE);
    CHECK_EQUAL(atrous_bundle_open(nullptr, &bundle), ATROUS_ERROR_ARGUMENT);
    CHECK_EQUAL(atrous_bundle_open(path.c_str(), nullptr), ATROUS_ERROR_ARGUMENT);
}

TEST(segmenter_error_texts_belong_to_their_thread) {
    CHECK_EQUAL(atrous_bundle_close(nullptr), ATROUS_ERROR_HANDLE);
    const std::string mine = atrous_last_error();
    std::thread([] {
        CHECK_EQUAL(std::string(atrous_last_error()), "");
        atrous_bundle_open(nullptr, nullptr);
    }).join();
    CHECK_EQUAL(std::string(atrous_last_error()), mine);
    CHECK_EQUAL(std::string(atrous_status_name(ATROUS_ERROR_BUNDLE)), "ATROUS_ERROR_BUNDLE");
    CHECK_EQUAL(std::string(atrous_status_name(-1)), "unknown status");
    CHECK_EQUAL(std::string(atrous_status_name(ATROUS_ERROR_INTERNAL)), "ATROUS_ERROR_INTERNAL");
}

TEST(segmenter_jobs_run_in_order) {
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder));
    std::vector<Picture> pictures;
    for (unsigned i = 0; i < 12; ++i) pictures.emplace_back(24 + 8 * static_cast<int>(i), 40, i);
    std::vector<atrous_job*> jobs;
    for (Picture& picture : pictures) {
        const atrous_frame frame = picture.frame();
        atrous_job* job = nullptr;
        CHECK_OK(atrous_submit(opened.handle, &frame, &job));
        jobs.push_back(job);
    }
    CHECK_OK(atrous_job_wait(jobs.back(), -1, nullptr));
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        atrous_timings timings = ATROUS_TIMINGS_INIT;
        CHECK_OK(atrous_job_wait(jobs[i], 0, &timings));  // over before the last
        CHECK(timings.total_ms > 0);
        CHECK(pictures[i].has_expected_labels());
        CHECK_OK(atrous_job_close(jobs[i]));
        CHECK_EQUAL(atrous_job_wait(jobs[i], 0, nullptr), ATROUS_ERROR_HANDLE);
    }
}

TEST(segmenter_that_closes_ends_its_jobs) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    for (int round = 0; round < 20; ++round) {
        std::vector<Picture> pictures(6, Picture(200, 200));
        std::vector<atrous_job*> jobs;
        {
            const Opened opened(path);
            for (Picture& picture : pictures) {
                const atrous_frame frame = picture.frame();
                atrous_job* job = nullptr;
                CHECK_OK(atrous_submit(opened.handle, &frame, &job));
                jobs.push_back(job);
            }
            if (round % 2 == 0) {
                CHECK_OK(atrous_job_close(jobs.back()));
                jobs.pop_back();
            }
        }
        for (std::size_t i = 0; i < jobs.size(); ++i) {
            const atrous_status status = atrous_job_wait(jobs[i], 0, nullptr);
            CHECK(status == ATROUS_OK || status == ATROUS_ERROR_HANDLE);
            if (status == ATROUS_OK) CHECK(pictures[i].has_expected_labels());
            CHECK_OK(atrous_job_close(jobs[i]));
        }
    }
}

TEST(segmenter_serves_eight_threads) {
    const Folder folder;
    const Opened opened(fixtures::write_bundle(folder), true);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            Picture picture(20 + 6 * static_cast<int>(t), 70, t);
            for (int round = 0; round < 6; ++round) {
                picture.labels.assign(picture.labels.size(), 255);
                const bool as_job = round % 2 == 1;
                atrous_status status = ATROUS_OK;
                if (as_job) {
                    const atrous_frame frame = picture.frame();
                    atrous_job* job = nullptr;
                    status = atrous_submit(opened.handle, &frame, &job);
                    if (status == ATROUS_OK) status = atrous_job_wait(job, -1, nullptr);
                    atrous_job_close(job);
                } else {
                    status = run(opened.handle, picture);
                }
                if (status != ATROUS_OK || !picture.has_expected_labels()) ++wrong;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK_EQUAL(wrong.load(), 0);
}

TEST(segmenter_may_close_while_others_use_it) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    for (int round = 0; round < 10; ++round) {
        auto opened = std::make_unique<Opened>(path);
        atrous_segmenter* const handle = opened->handle;
        std::atomic<int> unexpected{0};
        std::vector<std::thread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&] {
                Picture picture(60, 60);
                for (;;) {
                    const atrous_status status = run(handle, picture);
                    if (status == ATROUS_ERROR_HANDLE) return;
                    if (status != ATROUS_OK || !picture.has_expected_labels()) ++unexpected;
                }
            });
        }
        Picture picture(60, 60);
        CHECK_OK(run(handle, picture));
        opened.reset();
        for (std::thread& thread : threads) thread.join();
        CHECK_EQUAL(unexpected.load(), 0);
    }
}

TEST(segmenter_opens_and_closes_a_thousand_times) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    for (int round = 0; round < 1000; ++round) {
        const Opened opened(path, round % 10 == 0);
        Picture picture(20, 30);
        CHECK_OK(run(opened.handle, picture));
        if (round % 10 != 0) continue;
        const atrous_frame frame = picture.frame();
        atrous_job* job = nullptr;
        CHECK_OK(atrous_submit(opened.handle, &frame, &job));
        CHECK_OK(atrous_job_wait(job, -1, nullptr));
        CHECK_OK(atrous_job_close(job));
    }
}
