// The GPU's part on the stand-in driver, whose kernels run in the emulator: the library's own launch sequences and
// memory against the CPU's results. The engine is that of fixtures.cpp, reading and writing device memory.
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "catalogue.hpp"
#include "cpu_crf.hpp"
#include "cuda/crf_field.hpp"
#include "cuda/device_pipeline.hpp"
#include "cuda/images.hpp"
#include "failure.hpp"
#include "fixtures.hpp"
#include "gpu.hpp"
#include "testing.hpp"

using namespace atrous::core;
using fixtures::Folder;
using fixtures::Opened;
using fixtures::Picture;

namespace {

/// Marginals and labels on the GPU against the CPU core, both of which sum in their own order. Measured: 1.3e-6.
constexpr float kMarginals = 1e-5f;

class PixelsOnDevice : public cuda::DeviceEngine {
  public:
    explicit PixelsOnDevice(std::string mode) : mode_(std::move(mode)) {}

    cuda::EngineLayout prepare(const Size& input) override {
        input_ = input;
        return {false, mode_ == "wrong classes" ? 2 : channels(), {input.height / 8, input.width / 8}, false};
    }
    void queue(const cuda::Region& source, const cuda::Region& result, const cuda::Stream& stream) override {
        if (mode_ == "throw") throw std::runtime_error("the engine broke");
        std::vector<float> pixels(3 * static_cast<std::size_t>(input_.height) * input_.width);
        stream.download(pixels.data(), source, pixels.size() * sizeof(float));
        stream.synchronize();
        std::vector<float> logits;
        for (int c = 0; c < channels(); ++c) {
            for (int y = 0; y < input_.height / 8; ++y) {
                for (int x = 0; x < input_.width / 8; ++x) {
                    logits.push_back(
                        pixels[(static_cast<std::size_t>(c) * input_.height + 8 * y) * input_.width + 8 * x]);
                }
            }
        }
        if (mode_ == "one channel") {
            for (float& logit : logits) logit -= 100;
        }
        if (mode_ == "nan") logits[1] = NAN;
        CHECK_EQUAL(result.bytes, logits.size() * sizeof(float));
        stream.upload(result, logits.data(), result.bytes);
        stream.synchronize();
    }
    bool is_capturable() const override { return false; }

  private:
    int channels() const { return mode_ == "one channel" ? 1 : 3; }

    std::string mode_;
    Size input_;
};

class PixelBackend : public cuda::DeviceBackend {
  public:
    explicit PixelBackend(std::string mode) : mode_(std::move(mode)) {}
    std::unique_ptr<cuda::DeviceEngine> open_engine() override { return std::make_unique<PixelsOnDevice>(mode_); }

  private:
    std::string mode_;
};

const char* device_backend() {
    device();  // a case is skipped here, not inside of the library
    static const bool added = [] {
        catalogue().push_back({"gpu pixels", [](std::shared_ptr<const Bundle> bundle, const Options& options) {
                                   const Artifact& artifact = find_onnx(*bundle, options.precision, "gpu pixels");
                                   auto backend = std::make_shared<PixelBackend>(bundle->read(artifact));
                                   return cuda::make_device_pipeline(
                                       device(), bundle, backend, options,
                                       {"gpu pixels", device()->name(), artifact.precision, artifact.file, ""});
                               }});
        return true;
    }();
    return added ? "gpu pixels" : "";
}

struct Outputs {
    std::vector<std::uint8_t> labels;
    std::vector<float> probabilities;
};

Outputs segment(const std::filesystem::path& path, const char* backend, bool has_crf, Picture& picture,
                bool bgr = false, const char* crf_storage = nullptr) {
    const Opened opened(path, has_crf, backend, crf_storage);
    Outputs outputs{{}, std::vector<float>(picture.labels.size() * 3)};
    atrous_frame frame = picture.frame();
    frame.format = bgr ? ATROUS_BGR8 : ATROUS_RGB8;
    frame.probabilities = outputs.probabilities.data();
    atrous_timings timings = ATROUS_TIMINGS_INIT;
    CHECK_OK(atrous_run(opened.handle, &frame, &timings));
    CHECK((timings.crf_ms > 0) == has_crf);
    CHECK_OK(atrous_run(opened.handle, &frame, nullptr));  // again, from the graphs
    outputs.labels = picture.labels;
    return outputs;
}

void check_same(const Outputs& actual, const Outputs& expected, float tolerance) {
    CHECK(actual.labels == expected.labels);
    for (std::size_t i = 0; i < expected.probabilities.size(); ++i) {
        CHECK(std::fabs(actual.probabilities[i] - expected.probabilities[i]) <= tolerance);
    }
}

/// Noise on top of the blocks, so that the lattice has work.
Picture noisy(int height, int width) {
    Picture picture(height, width, 3);
    std::mt19937 random(1);
    for (std::uint8_t& value : picture.pixels) value = static_cast<std::uint8_t>(value / 2 + random() % 100);
    return picture;
}

}  // namespace

TEST(cuda_mean_field_is_the_cpu_core) {
    const cuda::Current current(*device());
    const cuda::Stream stream(device());
    cuda::Replayer queue(device(), stream, cuda::kCrfImage);
    std::mt19937 random(7);
    for (const auto& [classes, height, width, iterations] :
         {std::tuple{3, 17, 19, 10}, {21, 12, 13, 5}, {1, 4, 4, 2}, {5, 1, 1, 3}, {3, 8, 9, 0}, {130, 5, 6, 2}}) {
        const std::size_t pixels = static_cast<std::size_t>(height) * width;
        std::vector<float> maps(classes * pixels);
        std::vector<std::uint8_t> rgb(3 * pixels);
        for (float& value : maps) value = 0.01f + static_cast<float>(random() % 1000) / 1000.0f;
        for (std::size_t i = 0; i < pixels; ++i) {
            float sum = 0;
            for (int c = 0; c < classes; ++c) sum += maps[c * pixels + i];
            for (int c = 0; c < classes; ++c) maps[c * pixels + i] /= sum;
        }
        for (std::uint8_t& value : rgb) value = static_cast<std::uint8_t>(random() % 256);
        std::vector<float> expected(maps.size());
        std::vector<std::uint8_t> expected_labels(pixels);
        CpuCrf cpu({}, iterations, 1);
        cpu.refine(maps.data(), classes, rgb.data(), {height, width}, expected_labels.data(), expected.data());

        // Noise has up to 6 vertices a pixel, the room is for 3 and at least 4096.
        cuda::Field field(queue, {classes, height, width, iterations, CrfParams{}});
        const cuda::Memory picture(device(), rgb.size());
        const cuda::Memory marginals(device(), maps.size() * sizeof(float));
        const cuda::Memory labels(device(), pixels);
        stream.upload(picture.region(), rgb.data(), rgb.size());
        stream.upload(field.probabilities(), maps.data(), maps.size() * sizeof(float));
        field.queue_frame(picture.region());
        field.queue_marginals(marginals.region());
        field.queue_labels(labels.region());
        std::vector<float> actual(maps.size());
        std::vector<std::uint8_t> actual_labels(pixels);
        cuda::FieldReport report{};
        stream.download(actual.data(), marginals.region(), actual.size() * sizeof(float));
        stream.download(actual_labels.data(), labels.region(), pixels);
        stream.download(&report, field.report(), sizeof report);
        stream.synchronize();
        CHECK_EQUAL(report.failures, 0U);
        float worst = 0;
        for (std::size_t i = 0; i < actual.size(); ++i) worst = std::max(worst, std::fabs(actual[i] - expected[i]));
        CHECK(worst <= kMarginals);
        CHECK(actual_labels == expected_labels);
    }
}

TEST(cuda_pipeline_of_one_channel_is_the_cpu_pipeline) {
    const Folder folder;
    nlohmann::json manifest = fixtures::make_manifest("one channel");
    manifest["schema_version"] = "1.1";
    manifest["classes"].erase(2);
    manifest["output"]["channels"] = {{"activation", "sigmoid"}, {"threshold", 0.75}};
    const auto path = fixtures::write_bundle(folder, manifest, "one channel");
    fixtures::add_pixel_engine();
    for (const bool has_crf : {false, true}) {
        Picture picture = has_crf ? noisy(24, 32) : Picture(100, 70);  // tiled without the CRF
        const Outputs expected = segment(path, "pixels", has_crf, picture);
        const Outputs actual = segment(path, device_backend(), has_crf, picture);
        CHECK(actual.labels != std::vector<std::uint8_t>(actual.labels.size(), actual.labels[0]));
        check_same(actual, expected, has_crf ? kMarginals : 0.0f);
    }
}

TEST(cuda_pipeline_is_the_cpu_pipeline) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    for (const auto& [height, width] : {std::pair{40, 56}, {33, 50}, {16, 16}, {5, 9}}) {  // padded and not
        for (const bool has_crf : {false, true}) {
            Picture picture = noisy(height, width);
            const Outputs expected = segment(path, "pixels", has_crf, picture);
            check_same(segment(path, device_backend(), has_crf, picture), expected, has_crf ? kMarginals : 0.0f);
        }
    }
}

TEST(cuda_pipeline_stores_fractions_where_asked) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    Picture picture = noisy(33, 50);
    const Outputs single = segment(path, "pixels", true, picture);
    const Outputs expected = segment(path, "pixels", true, picture, false, "unorm16");
    CHECK(expected.probabilities != single.probabilities);
    check_same(segment(path, device_backend(), true, picture, false, "unorm16"), expected, kMarginals);
}

TEST(cuda_pipeline_tiles) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    Picture picture = noisy(40, 150);
    check_same(segment(path, device_backend(), false, picture), segment(path, "pixels", false, picture), 0.0f);
}

TEST(cuda_pipeline_resizes) {
    for (const char* resize : {"stretch", "letterbox"}) {
        const Folder folder;
        nlohmann::json manifest = fixtures::make_manifest("pixels");
        manifest["input"]["resize"] = resize;
        manifest["input"]["color_order"] = "BGR";
        manifest["input"]["mean"] = {10, 20, 30};
        const auto path = fixtures::write_bundle(folder, manifest, "pixels");
        for (const auto& [height, width] : {std::pair{80, 60}, {60, 130}, {32, 50}, {90, 48}, {9, 7}, {1, 400}}) {
            Picture picture = noisy(height, width);
            check_same(segment(path, device_backend(), false, picture), segment(path, "pixels", false, picture), 0.0f);
        }
    }
}

TEST(cuda_pipeline_takes_bgr) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    Picture picture = noisy(30, 40);
    check_same(segment(path, device_backend(), true, picture, true), segment(path, "pixels", true, picture, true),
               kMarginals);
}

TEST(cuda_pipeline_makes_room_for_noise) {
    // As many vertices as pixels have corners: the first try overflows.
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    Picture picture(64, 64);
    std::mt19937 random(2);
    for (std::uint8_t& value : picture.pixels) value = static_cast<std::uint8_t>(random() % 256);
    const Outputs expected = segment(path, "pixels", true, picture);
    check_same(segment(path, device_backend(), true, picture), expected, kMarginals);
}

TEST(cuda_pipeline_reads_and_writes_device_memory) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    Picture picture = noisy(30, 41);
    const Outputs expected = segment(path, "pixels", true, picture, true);
    const Opened opened(path, true, device_backend());
    const cuda::Current current(*device());
    const cuda::Stream stream(device());
    constexpr std::int64_t kPixelPitch = 130, kLabelPitch = 64;
    const cuda::Memory pixels(device(), 30 * kPixelPitch);
    const cuda::Memory labels(device(), 30 * kLabelPitch);
    const cuda::Memory probabilities(device(), 3 * 30 * 41 * sizeof(float));
    std::vector<std::uint8_t> rows(30 * kPixelPitch, 77);
    for (int y = 0; y < 30; ++y) std::memcpy(&rows[y * kPixelPitch], &picture.pixels[y * 41 * 3], 41 * 3);
    stream.upload(pixels.region(), rows.data(), rows.size());
    atrous_frame frame = picture.frame();
    frame.memory = ATROUS_DEVICE;
    frame.format = ATROUS_BGR8;
    frame.pixels = reinterpret_cast<const std::uint8_t*>(pixels.region().address);
    frame.pixel_row_bytes = kPixelPitch;
    frame.labels = reinterpret_cast<std::uint8_t*>(labels.region().address);
    frame.label_row_bytes = kLabelPitch;
    frame.probabilities = reinterpret_cast<float*>(probabilities.region().address);
    frame.stream = stream.handle();
    CHECK_OK(atrous_run(opened.handle, &frame, nullptr));
    std::vector<std::uint8_t> received(30 * kLabelPitch);
    Outputs actual{std::vector<std::uint8_t>(30 * 41), std::vector<float>(3 * 30 * 41)};
    stream.download(received.data(), labels.region(), received.size());
    stream.download(actual.probabilities.data(), probabilities.region(), probabilities.region().bytes);
    stream.synchronize();
    for (int y = 0; y < 30; ++y) std::memcpy(&actual.labels[y * 41], &received[y * kLabelPitch], 41);
    check_same(actual, expected, kMarginals);

    // Memory of the host, and a stream of somebody else.
    frame.pixels = picture.pixels.data();
    CHECK_EQUAL(atrous_run(opened.handle, &frame, nullptr), ATROUS_ERROR_DEVICE);
    frame.pixels = reinterpret_cast<const std::uint8_t*>(pixels.region().address);
    if (device()->name() == "stand-in driver") {  // a real one does not survive an invented stream
        frame.stream = &frame;
        CHECK_EQUAL(atrous_run(opened.handle, &frame, nullptr), ATROUS_ERROR_DEVICE);
    }
    frame.stream = nullptr;
    CHECK_OK(atrous_run(opened.handle, &frame, nullptr));
}

TEST(cuda_pipeline_serves_threads) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    Picture reference = noisy(24, 40);
    const Outputs expected = segment(path, "pixels", true, reference);
    const Opened opened(path, true, device_backend());
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            Picture picture = noisy(24, 40);
            for (int round = 0; round < 2; ++round) {
                const atrous_frame frame = picture.frame();
                const atrous_status status = atrous_run(opened.handle, &frame, nullptr);
                if (status != ATROUS_OK || picture.labels != expected.labels) ++wrong;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK_EQUAL(wrong.load(), 0);
}

TEST(cuda_pipeline_gives_its_memory_back) {
    const Folder folder;
    const auto path = fixtures::write_bundle(folder);
    device_backend();
    const cuda::Current current(*device());
    const std::size_t before = device()->free_bytes();
    {
        const Opened opened(path, true, device_backend());
        for (const int side : {16, 24, 32, 16}) {  // more sizes than are kept
            Picture picture = noisy(side, side);
            const atrous_frame frame = picture.frame();
            CHECK_OK(atrous_run(opened.handle, &frame, nullptr));
        }
        CHECK(device()->free_bytes() < before);
    }
    // On a GPU others may take and give at the same time.
    if (device()->name() == "stand-in driver") CHECK_EQUAL(device()->free_bytes(), before);
}

TEST(cuda_pipeline_reports_engines_that_fail) {
    for (const auto& mode : {"throw", "nan", "wrong classes"}) {
        const Folder folder;
        const Opened opened(fixtures::write_bundle(folder, mode), false, device_backend());
        Picture picture(30, 30);
        const atrous_frame frame = picture.frame();
        CHECK_EQUAL(atrous_run(opened.handle, &frame, nullptr), ATROUS_ERROR_ENGINE);
        CHECK_EQUAL(atrous_run(opened.handle, &frame, nullptr), ATROUS_ERROR_ENGINE);
    }
}

TEST(cuda_device_that_is_not_there) {
    device();
    try {
        const cuda::Device absent(5);
        CHECK(false);
    } catch (const Failure& failure) {
        CHECK_EQUAL(failure.status(), ATROUS_ERROR_DEVICE);
    }
}
