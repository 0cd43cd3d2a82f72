#include "parallel.hpp"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace atrous {
namespace {

/// One call of parallel_pieces. Whoever holds it, however late, may ask it for work.
class Job {
  public:
    Job(std::int64_t pieces, const std::function<void(std::int64_t)>& body) : pieces_(pieces), body_(body) {}

    /// Works on pieces until none is left unclaimed.
    void help() {
        for (std::int64_t piece; (piece = next_.fetch_add(1, std::memory_order_relaxed)) < pieces_;) {
            try {
                body_(piece);  // the caller keeps the body alive until every claimed piece has ended
            } catch (...) {
                const std::lock_guard<std::mutex> lock(mutex_);
                failure_ = std::current_exception();
            }
            if (ended_.fetch_add(1, std::memory_order_acq_rel) + 1 == pieces_) {
                const std::lock_guard<std::mutex> lock(mutex_);
                all_ended_.notify_all();
            }
        }
    }

    /// Waits for the pieces that others have claimed.
    void wait() {
        const auto is_over = [&] { return ended_.load(std::memory_order_acquire) == pieces_; };
        std::unique_lock<std::mutex> lock(mutex_);
        all_ended_.wait(lock, is_over);
        if (failure_) std::rethrow_exception(failure_);
    }

  private:
    const std::int64_t pieces_;
    const std::function<void(std::int64_t)>& body_;
    std::atomic<std::int64_t> next_{0};
    std::atomic<std::int64_t> ended_{0};
    std::mutex mutex_;
    std::condition_variable all_ended_;
    std::exception_ptr failure_;
};

/// Threads that wait for jobs. Callers always work on their own job too, so a pool without live threads, as in a forked
/// child, costs speed and nothing else.
class Pool {
  public:
    void offer(const std::shared_ptr<Job>& job, int helpers) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            while (threads_ < helpers) {
                std::thread([this] { serve(); }).detach();
                ++threads_;
            }
            for (int i = 0; i < helpers; ++i) queue_.push_back(job);
            offered_.fetch_add(1, std::memory_order_release);
        }
        work_arrived_.notify_all();
    }

    /// Takes back the offers that nobody has accepted.
    void withdraw(const std::shared_ptr<Job>& job) {
        const std::lock_guard<std::mutex> lock(mutex_);
        queue_.erase(std::remove(queue_.begin(), queue_.end(), job), queue_.end());
    }

  private:
    [[noreturn]] void serve() {
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex_);
            if (queue_.empty()) {
                const std::uint64_t seen = offered_.load(std::memory_order_relaxed);
                lock.unlock();
                linger(seen);
                lock.lock();
                work_arrived_.wait(lock, [&] { return !queue_.empty(); });
            }
            const std::shared_ptr<Job> job = std::move(queue_.front());
            queue_.pop_front();
            lock.unlock();
            job->help();
        }
    }

    /// Stays awake for a moment: loops follow each other closely, and waking a sleeping thread takes longer.
    void linger(std::uint64_t seen) const {
        for (int i = 0; i < 4000 && offered_.load(std::memory_order_acquire) == seen; ++i) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    }

    std::mutex mutex_;
    std::condition_variable work_arrived_;
    std::deque<std::shared_ptr<Job>> queue_;
    std::atomic<std::uint64_t> offered_{0};
    int threads_ = 0;
};

Pool& pool() {
    static Pool* const instance = new Pool;  // never destroyed: its threads may outlive static destruction
    return *instance;
}

}  // namespace

int resolve_threads(int requested) {
    if (requested > 0) return requested;
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_pieces(std::int64_t pieces, int threads, const std::function<void(std::int64_t)>& body) {
    const int helpers = static_cast<int>(std::min<std::int64_t>(threads, pieces)) - 1;
    if (helpers < 1) {
        for (std::int64_t piece = 0; piece < pieces; ++piece) body(piece);
        return;
    }
    const auto job = std::make_shared<Job>(pieces, body);
    pool().offer(job, helpers);
    job->help();
    pool().withdraw(job);
    job->wait();
}

}  // namespace atrous
