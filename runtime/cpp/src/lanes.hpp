// What a call needs for itself (an inference request, buffers), lent out and kept for the next call.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace atrous::core {

/// As many lanes as calls ever ran at once.
template <typename Lane>
class Lanes {
  public:
    explicit Lanes(std::function<std::unique_ptr<Lane>()> make) : make_(std::move(make)) {}

    /// Calls `body(lane)` with a lane that nobody else has. A lane that saw a failure is dropped with whatever state
    /// it is in.
    template <typename Body>
    void use(const Body& body) {
        std::unique_ptr<Lane> lane = take();
        body(*lane);
        const std::lock_guard<std::mutex> lock(mutex_);
        idle_.push_back(std::move(lane));
    }

  private:
    std::unique_ptr<Lane> take() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!idle_.empty()) {
                std::unique_ptr<Lane> lane = std::move(idle_.back());
                idle_.pop_back();
                return lane;
            }
        }
        return make_();
    }

    std::function<std::unique_ptr<Lane>()> make_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Lane>> idle_;
};

}  // namespace atrous::core
