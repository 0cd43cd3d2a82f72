// Bundles that a writer replaces while they are opened: a reader gets the old one or the new one, whole.
#include <fcntl.h>

#include <atomic>
#include <atrous/atrous.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>

#include "fixtures.hpp"
#include "testing.hpp"

namespace fs = std::filesystem;
using fixtures::Folder;
using fixtures::Picture;

namespace {

constexpr int kOpenings = 300;

enum class Step { kExchange, kAside };

/// Replaces a bundle over and over, in one step or, as where folders cannot be exchanged, in two.
class Writer {
  public:
    Writer(const Folder& folder, Step step) : folder_(folder.path()), step_(step) {
        fs::rename(make(), target());
        thread_ = std::thread([this] {
            while (!is_done_) replace();
        });
    }
    ~Writer() {
        is_done_ = true;
        thread_.join();
    }
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    fs::path target() const { return folder_ / "busy.atrous"; }
    int rounds() const { return rounds_; }

  private:
    /// A bundle with another manifest than those before it, and a file of another size than the last one's.
    fs::path make() const {
        const std::string content = "pixels" + std::string(1 + rounds_ % 7, '\n');
        nlohmann::json manifest = fixtures::make_manifest(content);
        manifest["name"] = "round " + std::to_string(rounds_);
        const fs::path path = folder_ / ".busy.atrous.staging";
        fs::create_directory(path);
        fixtures::write_file(path / "manifest.json", manifest.dump());
        fixtures::write_file(path / "model.onnx", content);
        return path;
    }

    void replace() {
        ++rounds_;
        const fs::path staged = make();
        if (step_ == Step::kAside) {
            const fs::path aside = folder_ / ".busy.atrous.old.0123456789abcdef";
            fs::create_directory(aside);
            fs::rename(target(), aside / "busy.atrous");
            fs::rename(staged, target());
            fs::remove_all(aside);
        } else {
            exchange(staged, target());
            fs::remove_all(staged);
        }
    }

    static void exchange(const fs::path& first, const fs::path& second) {
        if (renameat2(AT_FDCWD, first.c_str(), AT_FDCWD, second.c_str(), RENAME_EXCHANGE) != 0) {
            throw std::runtime_error("cannot exchange two folders here");
        }
    }

    fs::path folder_;
    Step step_;
    std::atomic<bool> is_done_{false};
    std::atomic<int> rounds_{0};
    std::thread thread_;
};

void open_while_it_is_replaced(Step step) {
    const Folder folder;
    const Writer writer(folder, step);
    atrous::Options options;
    options.backend = "pixels";
    Picture picture(24, 32);
    for (int i = 0; i < kOpenings || writer.rounds() < kOpenings; ++i) {
        const atrous::Segmenter segmenter(writer.target().string(), options);
        picture.labels = segmenter({picture.pixels.data(), picture.height, picture.width}).labels;
        CHECK(picture.has_expected_labels());
        CHECK_EQUAL(std::string(segmenter.bundle().info().name).rfind("round ", 0), 0U);
    }
}

}  // namespace

TEST(bundle_is_opened_while_it_is_exchanged) {
    open_while_it_is_replaced(Step::kExchange);
}

TEST(bundle_is_opened_while_it_steps_aside) {
    open_while_it_is_replaced(Step::kAside);
}

TEST(bundle_that_was_replaced_says_so) {
    const Folder folder;
    const fs::path path = fixtures::write_bundle(folder);
    const atrous::Bundle bundle(path.string());
    CHECK(bundle.is_current());
    nlohmann::json manifest = fixtures::make_manifest("PIXELS");
    fixtures::write_file(path / "manifest.json", manifest.dump());
    fixtures::write_file(path / "model.onnx", "PIXELS");
    CHECK(!bundle.is_current());
    try {
        bundle.check_files();
        CHECK(false);
    } catch (const atrous::Error& error) {
        CHECK(std::string(error.what()).find("was changed by another writer since it was opened") != std::string::npos);
    }
    atrous::Bundle(path.string()).check_files();
    int32_t is_current = 0;
    CHECK_EQUAL(atrous_bundle_is_current(nullptr, &is_current), ATROUS_ERROR_HANDLE);
    CHECK_EQUAL(atrous_bundle_is_current(bundle.handle(), nullptr), ATROUS_ERROR_ARGUMENT);
}

TEST(bundle_left_aside_by_a_killed_writer_is_named) {
    const Folder folder;
    const fs::path path = fixtures::write_bundle(folder);
    const fs::path aside = path.parent_path() / ("." + path.filename().string() + ".old.0123456789abcdef");
    fs::create_directory(aside);
    fs::rename(path, aside / path.filename());
    atrous_bundle* bundle = nullptr;
    CHECK_EQUAL(atrous_bundle_open((path.string() + "/").c_str(), &bundle), ATROUS_ERROR_BUNDLE);
    CHECK(std::string(atrous_last_error()).find("move it back") != std::string::npos);
    CHECK(std::string(atrous_last_error()).find(aside.string()) != std::string::npos);
}
