// A pipeline with a thread for submitted frames.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "atrous/atrous.h"
#include "pipeline.hpp"

namespace atrous::core {

/// How a call ended.
struct Outcome {
    atrous_status status = ATROUS_OK;
    std::string text;
    Timings timings;
};

/// One submitted frame.
class Job {
  public:
    explicit Job(const Frame& frame) : frame_(frame) {}

    /// Runs it, unless it was dropped.
    void run(Pipeline& pipeline);
    /// Ends it without running, unless it has begun; then waits for its end.
    void drop(const std::string& why);
    /// Null when it has not ended after `timeout_ms`; negative waits for the end.
    const Outcome* wait(int timeout_ms);

  private:
    enum class State { waiting, running, ended };
    void end(Outcome outcome);

    const Frame frame_;
    std::mutex mutex_;
    std::condition_variable ended_;
    State state_ = State::waiting;
    Outcome outcome_;
};

class Segmenter {
  public:
    Segmenter(std::unique_ptr<Pipeline> pipeline, bool has_crf);
    ~Segmenter();
    Segmenter(const Segmenter&) = delete;
    Segmenter& operator=(const Segmenter&) = delete;

    const Description& description() const { return pipeline_->description; }
    bool has_crf() const { return has_crf_; }

    /// Never throws; what went wrong is in the outcome.
    Outcome run(const Frame& frame);
    std::shared_ptr<Job> submit(const Frame& frame);
    /// Drops the jobs that have not begun and waits for the one that has. Nothing can be submitted any more.
    void stop();

  private:
    void serve();

    std::unique_ptr<Pipeline> pipeline_;
    bool has_crf_;
    std::mutex mutex_;
    std::condition_variable arrived_;
    std::deque<std::shared_ptr<Job>> queue_;
    bool is_stopped_ = false;
    std::thread thread_;  ///< started by the first job
};

/// The exception being handled, as an outcome. Never throws.
Outcome outcome_of_exception() noexcept;

}  // namespace atrous::core
