// The C++17 face of atrous.h: objects that close themselves, exceptions, vectors. Header-only, so that it is compiled
// with the program's own standard library and nothing but the C interface has to match.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "atrous/atrous.h"

namespace atrous {

/// What went wrong, in words, and its status.
class Error : public std::runtime_error {
  public:
    Error(atrous_status status, const std::string& what) : std::runtime_error(what), status_(status) {}
    atrous_status status() const { return status_; }

  private:
    atrous_status status_;
};

/// Throws Error for a status that is one.
inline void check(atrous_status status) {
    if (status != ATROUS_OK && status != ATROUS_PENDING) throw Error(status, atrous_last_error());
}

/// One class; its index is its value in the labels.
struct ClassInfo {
    std::string name;
    std::array<std::uint8_t, 3> color;  ///< RGB
};

/// One band; its index is its place in a pixel.
struct BandInfo {
    std::string name;
    double low, high;  ///< the lowest and highest value that are meant to occur
};

/// An opened bundle. Copies share it.
class Bundle {
  public:
    /// Throws Error: not a bundle, damaged, or of another version.
    explicit Bundle(const std::string& path) {
        atrous_bundle* opened = nullptr;
        check(atrous_bundle_open(path.c_str(), &opened));
        handle_.reset(opened, &atrous_bundle_close);
    }

    /// Hashes every file that the manifest lists; throws Error at the first that differs.
    void check_files() const { check(atrous_bundle_check(handle())); }

    /// False if the bundle at the path was changed or replaced after this one was opened.
    bool is_current() const {
        std::int32_t is_current = 0;
        check(atrous_bundle_is_current(handle(), &is_current));
        return is_current != 0;
    }

    /// Size policy, stride and texts; the texts live as long as the bundle.
    atrous_bundle_info info() const {
        atrous_bundle_info info = ATROUS_BUNDLE_INFO_INIT;
        check(atrous_bundle_get_info(handle(), &info));
        return info;
    }

    /// Bands of the network's images, in the order of their channels; none of RGB in bytes.
    std::vector<BandInfo> bands() const {
        std::vector<BandInfo> bands;
        const atrous_bundle_info about = info();
        for (std::int32_t i = 0; about.has_bands != 0 && i < about.channels; ++i) {
            atrous_band band = ATROUS_BAND_INIT;
            check(atrous_bundle_get_band(handle(), i, &band));
            bands.push_back({band.name, band.low, band.high});
        }
        return bands;
    }

    std::vector<ClassInfo> classes() const {
        std::vector<ClassInfo> classes;
        const std::int32_t count = info().class_count;
        for (std::int32_t i = 0; i < count; ++i) {
            atrous_class entry = ATROUS_CLASS_INIT;
            check(atrous_bundle_get_class(handle(), i, &entry));
            classes.push_back({entry.name, {entry.color[0], entry.color[1], entry.color[2]}});
        }
        return classes;
    }

    atrous_bundle* handle() const { return handle_.get(); }

  private:
    std::shared_ptr<atrous_bundle> handle_;
};

/// How to open a segmenter; see atrous_options.
struct Options {
    std::string backend = "auto";
    std::string precision = "auto";
    bool crf = false;
    int crf_iterations = -1;
    std::string crf_storage = "fp32";
    float crf_class_floor = 0;
    int threads = 0;
    int device = 0;
};

/// An image in the program's memory.
struct Image {
    const void* pixels;  ///< [height, width, 3] bytes, or [height, width, channels] of `dtype`
    int height, width;
    std::int64_t row_bytes = 0;  ///< from one row to the next; 0: packed
    bool is_bgr = false;
    int channels = 0;  ///< of bands; 0: RGB, or BGR
    atrous_dtype dtype = ATROUS_UINT8;
};

/// One segmented image. Handed to `run` again, it keeps its memory.
struct Result {
    int height = 0, width = 0;
    std::vector<std::uint8_t> labels;        ///< [height, width]
    std::vector<std::uint16_t> wide_labels;  ///< [height, width], in their place where there are more than 256 classes
    std::vector<float> probabilities;        ///< [classes, height, width], or empty
    atrous_timings timings = ATROUS_TIMINGS_INIT;
};

/// A frame that is being segmented. Ends with the object: what has begun is waited for, the rest dropped.
class Job {
  public:
    /// Whether the result is there after so many milliseconds. Throws Error where the frame failed.
    bool wait_for(int timeout_ms) {
        const atrous_status status = atrous_job_wait(handle_.get(), timeout_ms, &result_->timings);
        check(status);
        return status == ATROUS_OK;
    }

    /// Waits for the result and hands it out. Throws Error where the frame failed.
    Result get() {
        wait_for(-1);
        return std::move(*result_);
    }

  private:
    friend class Segmenter;
    struct Close {
        void operator()(atrous_job* job) const { atrous_job_close(job); }
    };

    std::unique_ptr<Result> result_ = std::make_unique<Result>();  // outlives the job, which writes to it
    std::unique_ptr<atrous_job, Close> handle_;
};

/// Segments images; may be called from many threads. Copies share it.
class Segmenter {
  public:
    /// Opens the bundle again where a writer replaces it between its manifest and its graph. Throws Error.
    explicit Segmenter(const std::string& path, const Options& options = {}) : Segmenter(open(path, options)) {}
    /// Throws Error, also where the bundle was replaced since it was opened.
    explicit Segmenter(Bundle bundle, const Options& options = {}) : bundle_(std::move(bundle)) {
        atrous_options wanted = ATROUS_OPTIONS_INIT;
        wanted.backend = options.backend.c_str();
        wanted.precision = options.precision.c_str();
        wanted.crf = options.crf ? 1 : 0;
        wanted.crf_iterations = options.crf_iterations;
        wanted.crf_storage = options.crf_storage.c_str();
        wanted.crf_class_floor = options.crf_class_floor;
        wanted.threads = options.threads;
        wanted.device = options.device;
        atrous_segmenter* opened = nullptr;
        check(atrous_segmenter_open(bundle_.handle(), &wanted, &opened));
        handle_.reset(opened, &atrous_segmenter_close);
        class_count_ = bundle_.info().class_count;
    }

    const Bundle& bundle() const { return bundle_; }

    /// What runs; the texts live as long as the segmenter.
    atrous_segmenter_info info() const {
        atrous_segmenter_info info = ATROUS_SEGMENTER_INFO_INIT;
        check(atrous_segmenter_get_info(handle(), &info));
        return info;
    }

    Result operator()(const Image& image, bool with_probabilities = false) const {
        Result result;
        run(image, result, with_probabilities);
        return result;
    }

    /// Like a call, into a result whose memory is used again.
    void run(const Image& image, Result& result, bool with_probabilities = false) const {
        const atrous_frame frame = frame_for(image, result, with_probabilities);
        check(atrous_run(handle(), &frame, &result.timings));
    }

    /// For what `run` does not cover, such as memory of a GPU.
    atrous_timings run(const atrous_frame& frame) const {
        atrous_timings timings = ATROUS_TIMINGS_INIT;
        check(atrous_run(handle(), &frame, &timings));
        return timings;
    }

    /// Queues an image, whose pixels must stay until the job has ended.
    Job submit(const Image& image, bool with_probabilities = false) const {
        Job job;
        const atrous_frame frame = frame_for(image, *job.result_, with_probabilities);
        atrous_job* submitted = nullptr;
        check(atrous_submit(handle(), &frame, &submitted));
        job.handle_.reset(submitted);
        return job;
    }

    atrous_segmenter* handle() const { return handle_.get(); }

  private:
    static Segmenter open(const std::string& path, const Options& options) {
        while (true) {
            const Bundle bundle(path);
            try {
                return Segmenter(bundle, options);
            } catch (const Error& error) {
                if (error.status() != ATROUS_ERROR_BUNDLE || bundle.is_current()) throw;
            }
        }
    }

    atrous_frame frame_for(const Image& image, Result& result, bool with_probabilities) const {
        if (image.height < 1 || image.width < 1 || image.height > 65536 || image.width > 65536) {
            throw Error(ATROUS_ERROR_ARGUMENT, "a picture has 1 to 65536 pixels a side");
        }
        const std::size_t pixels = static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
        result.height = image.height;
        result.width = image.width;
        const bool is_wide = class_count_ > 256;
        result.labels.resize(is_wide ? 0 : pixels);
        result.wide_labels.resize(is_wide ? pixels : 0);
        result.probabilities.resize(with_probabilities ? pixels * static_cast<std::size_t>(class_count_) : 0);
        atrous_frame frame = ATROUS_FRAME_INIT;
        frame.format = image.channels != 0 ? ATROUS_BANDS : image.is_bgr ? ATROUS_BGR8 : ATROUS_RGB8;
        frame.channels = image.channels;
        frame.dtype = image.dtype;
        frame.label_dtype = is_wide ? ATROUS_UINT16 : ATROUS_UINT8;
        frame.height = image.height;
        frame.width = image.width;
        frame.pixels = image.pixels;
        frame.pixel_row_bytes = image.row_bytes;
        frame.labels = is_wide ? static_cast<void*>(result.wide_labels.data()) : result.labels.data();
        frame.probabilities = with_probabilities ? result.probabilities.data() : nullptr;
        return frame;
    }

    Bundle bundle_;
    std::shared_ptr<atrous_segmenter> handle_;
    std::int32_t class_count_ = 0;
};

}  // namespace atrous
