// From an image to labels: what the CPU's way and the GPU's way have in common.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "manifest.hpp"

namespace atrous::core {

/// An image and where its results go; judged by the caller.
struct Frame {
    const std::uint8_t* pixels;  ///< [height, width, channels]
    PixelFormat format;
    Size size;
    std::int64_t row_bytes;
    bool is_bgr;
    std::uint8_t* labels;  ///< [height, width], `label_bytes` each
    int label_bytes;
    std::int64_t label_row_bytes;
    float* probabilities;  ///< [classes, height, width], or null
    bool on_device;
    void* stream;  ///< with on_device

    bool has_packed_labels() const { return label_row_bytes == std::int64_t{label_bytes} * size.width; }
};

/// Throws Failure(SHAPE) unless the frame has the network's channels, numbers where they are floats, and room for its
/// labels.
void check_frame(const Frame& frame, const Manifest& manifest);

enum class Stage { preprocess, inference, postprocess, crf };

/// Milliseconds by stage.
struct Timings {
    double ms[4] = {};
    double total_ms = 0;
};

/// Adds its lifetime to a stage.
class StageClock {
  public:
    StageClock(Timings& timings, Stage stage) : timings_(timings), stage_(stage) {}
    StageClock(const StageClock&) = delete;
    StageClock& operator=(const StageClock&) = delete;
    ~StageClock() {
        const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - start_;
        timings_.ms[static_cast<int>(stage_)] += passed.count();
    }

  private:
    Timings& timings_;
    Stage stage_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// What runs, for people.
struct Description {
    std::string backend, device, precision, artifact, note;
};

/// Segments images; safe to use from many threads.
class Pipeline {
  public:
    Pipeline() = default;
    Pipeline(const Pipeline&) = delete;
    Pipeline& operator=(const Pipeline&) = delete;
    virtual ~Pipeline() = default;

    virtual void run(const Frame& frame, Timings& timings) = 0;

    Description description;
};

}  // namespace atrous::core
