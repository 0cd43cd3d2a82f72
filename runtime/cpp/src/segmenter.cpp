#include "segmenter.hpp"

#include <chrono>
#include <new>
#include <utility>

#include "failure.hpp"
#include "native/error.hpp"

namespace atrous::core {
namespace {

Outcome run_pipeline(Pipeline& pipeline, const Frame& frame) {
    Outcome outcome;
    try {
        const auto start = std::chrono::steady_clock::now();
        pipeline.run(frame, outcome.timings);
        const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - start;
        outcome.timings.total_ms = passed.count();
    } catch (...) {
        return outcome_of_exception();
    }
    return outcome;
}

Outcome outcome_with(atrous_status status, const char* what) noexcept {
    Outcome outcome;
    outcome.status = status;
    try {
        outcome.text = what;
    } catch (...) {  // no memory for the text either
        outcome.status = ATROUS_ERROR_MEMORY;
    }
    return outcome;
}

}  // namespace

Outcome outcome_of_exception() noexcept {
    try {
        throw;
    } catch (const Failure& failure) {
        return outcome_with(failure.status(), failure.what());
    } catch (const CrfError& error) {
        return outcome_with(ATROUS_ERROR_CRF, error.what());
    } catch (const ShapeError& error) {
        return outcome_with(ATROUS_ERROR_SHAPE, error.what());
    } catch (const EngineError& error) {
        return outcome_with(ATROUS_ERROR_ENGINE, error.what());
    } catch (const std::bad_alloc&) {
        return outcome_with(ATROUS_ERROR_MEMORY, "there is not enough memory");
    } catch (const std::exception& error) {
        return outcome_with(ATROUS_ERROR_INTERNAL, error.what());
    } catch (...) {
        return outcome_with(ATROUS_ERROR_INTERNAL, "an exception of unknown type");
    }
}

void Job::run(Pipeline& pipeline) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (state_ != State::waiting) return;
        state_ = State::running;
    }
    end(run_pipeline(pipeline, frame_));
}

void Job::end(Outcome outcome) {
    const std::lock_guard<std::mutex> lock(mutex_);
    outcome_ = std::move(outcome);
    state_ = State::ended;
    ended_.notify_all();
}

void Job::drop(const std::string& why) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (state_ == State::waiting) {
        outcome_.status = ATROUS_ERROR_HANDLE;
        outcome_.text = why;
        state_ = State::ended;
        ended_.notify_all();
    }
    ended_.wait(lock, [this] { return state_ == State::ended; });
}

const Outcome* Job::wait(int timeout_ms) {
    const auto has_ended = [this] { return state_ == State::ended; };
    std::unique_lock<std::mutex> lock(mutex_);
    if (timeout_ms < 0) {
        ended_.wait(lock, has_ended);
    } else {
        ended_.wait_for(lock, std::chrono::milliseconds(timeout_ms), has_ended);
    }
    return has_ended() ? &outcome_ : nullptr;  // never written again once the job has ended
}

Segmenter::Segmenter(std::unique_ptr<Pipeline> pipeline, bool has_crf)
    : pipeline_(std::move(pipeline)), has_crf_(has_crf) {}

Segmenter::~Segmenter() {
    stop();
}

Outcome Segmenter::run(const Frame& frame) {
    return run_pipeline(*pipeline_, frame);
}

std::shared_ptr<Job> Segmenter::submit(const Frame& frame) {
    auto job = std::make_shared<Job>(frame);
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (is_stopped_) fail(ATROUS_ERROR_HANDLE, "the segmenter was closed");
        if (!thread_.joinable()) thread_ = std::thread([this] { serve(); });
        queue_.push_back(job);
    }
    arrived_.notify_one();
    return job;
}

void Segmenter::stop() {
    std::deque<std::shared_ptr<Job>> dropped;
    std::thread thread;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        is_stopped_ = true;
        dropped.swap(queue_);
        thread.swap(thread_);
    }
    arrived_.notify_all();
    for (const auto& job : dropped) job->drop("the segmenter was closed before the job began");
    if (thread.joinable()) thread.join();
}

void Segmenter::serve() {
    for (;;) {
        std::shared_ptr<Job> job;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            arrived_.wait(lock, [this] { return is_stopped_ || !queue_.empty(); });
            if (queue_.empty()) return;
            job = std::move(queue_.front());
            queue_.pop_front();
        }
        job->run(*pipeline_);
    }
}

}  // namespace atrous::core
