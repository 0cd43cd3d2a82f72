// Runs the blocks of a launch one after the other, and the threads of a block as fibers. See cuda_shim.h.
#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda_shim.h"
#include "launch.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;

struct Stop {};  // thrown through a kernel that failed

/// Where a fiber may be switched to, and the stack that sanitizers need to know of.
struct Place {
    ucontext_t context;
    const void* stack = nullptr;
    std::size_t bytes = 0;
    void* fake_stack = nullptr;
};

/// Leaves `from` and goes on in `to`; returns when someone switches back.
void switch_to(Place& from, Place& to) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.bytes);
#endif
    swapcontext(&from.context, &to.context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

struct Fiber {
    Place place;
    std::unique_ptr<char[]> memory;
    int thread = -1;  ///< the CUDA thread that it is running
};

/// What the lanes of a warp tell each other. Two sets, used in turns: a lane that is one operation ahead does not
/// overwrite what a slower one has yet to read.
struct Warp {
    std::uint64_t words[2][kWarpSize];
    int turn = 0;
    int arrived = 0;
    std::vector<Fiber*> waiting;
};

class Scheduler {
  public:
    void run(const std::function<void()>& kernel, dim3 grid, dim3 block, int order);
    void barrier();
    const std::uint64_t* exchange(unsigned mask, std::uint64_t mine);
    int lane() const { return current_->thread % kWarpSize; }
    [[noreturn]] void fail(const std::string& what) {
        if (error_.empty()) error_ = what;
        throw Stop{};
    }
    const std::string& error() const { return error_; }

  private:
    static void enter();
    void run_block();
    void run_threads();
    Fiber* idle_fiber();
    void wait();
    void set_thread(int thread);
    std::vector<int> order_of(int count) const;

    const std::function<void()>* kernel_ = nullptr;
    std::vector<int> threads_;  ///< in starting order
    std::size_t started_ = 0;
    int finished_ = 0;
    int order_ = 0;
    Place main_;
    Fiber* current_ = nullptr;
    std::vector<std::unique_ptr<Fiber>> fibers_;
    std::vector<Fiber*> idle_;
    std::vector<Fiber*> ready_;
    std::vector<Fiber*> at_barrier_;
    std::vector<Warp> warps_;
    std::string error_;
};

Scheduler* scheduler = nullptr;

/// 0 forwards, 1 backwards, anything else shuffled from that seed.
std::vector<int> Scheduler::order_of(int count) const {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (order_ == 1) std::reverse(order.begin(), order.end());
    if (order_ > 1) std::shuffle(order.begin(), order.end(), std::mt19937(order_));
    return order;
}

void Scheduler::run(const std::function<void()>& kernel, dim3 grid, dim3 block, int order) {
    kernel_ = &kernel;
    order_ = order;
    error_.clear();
    gridDim = grid;
    blockDim = block;
    threads_ = order_of(static_cast<int>(block.x * block.y * block.z));
    for (const int index : order_of(static_cast<int>(grid.x * grid.y * grid.z))) {
        const unsigned at = static_cast<unsigned>(index);
        blockIdx = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
        run_block();
        if (!error_.empty()) return;
    }
}

void Scheduler::run_block() {
    started_ = 0;
    finished_ = 0;
    ready_.clear();
    at_barrier_.clear();
    warps_.assign((threads_.size() + kWarpSize - 1) / kWarpSize, Warp{});
    idle_.clear();
    for (const auto& fiber : fibers_) idle_.push_back(fiber.get());
    const auto count = static_cast<int>(threads_.size());
    while (finished_ < count && error_.empty()) {
        if (!ready_.empty()) {
            current_ = ready_.back();
            ready_.pop_back();
            set_thread(current_->thread);
        } else if (started_ < threads_.size()) {
            current_ = idle_fiber();
        } else if (static_cast<int>(at_barrier_.size()) == count) {
            ready_.swap(at_barrier_);
            continue;
        } else {
            const bool in_warps = static_cast<int>(at_barrier_.size()) + finished_ < count;
            error_ = at_barrier_.empty() ? "a warp operation that not all lanes of the warp reach"
                     : in_warps          ? "threads that wait at different barriers"
                                         : "a barrier that not all threads of the block reach";
            break;
        }
        switch_to(main_, current_->place);
    }
    // After an error, fibers in the middle of a thread are dropped with their stacks: kernels own nothing.
    if (!error_.empty()) fibers_.clear();
}

/// Runs on a fiber: threads until none is left, again for each block.
void Scheduler::enter() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler->main_.stack, &scheduler->main_.bytes);
#endif
    for (;;) {
        scheduler->run_threads();
        Fiber* self = scheduler->current_;
        self->thread = -1;
        scheduler->idle_.push_back(self);
        switch_to(self->place, scheduler->main_);
    }
}

void Scheduler::run_threads() {
    Fiber* self = current_;
    while (started_ < threads_.size() && error_.empty()) {
        self->thread = threads_[started_++];
        set_thread(self->thread);
        try {
            (*kernel_)();
        } catch (const Stop&) {
            return;
        }
        ++finished_;
    }
}

Fiber* Scheduler::idle_fiber() {
    if (idle_.empty()) {
        auto fiber = std::make_unique<Fiber>();
        fiber->memory.reset(new char[kStackBytes]);
        getcontext(&fiber->place.context);
        fiber->place.context.uc_stack.ss_sp = fiber->memory.get();
        fiber->place.context.uc_stack.ss_size = kStackBytes;
        fiber->place.stack = fiber->memory.get();
        fiber->place.bytes = kStackBytes;
        makecontext(&fiber->place.context, &Scheduler::enter, 0);
        fibers_.push_back(std::move(fiber));
        return fibers_.back().get();
    }
    Fiber* fiber = idle_.back();
    idle_.pop_back();
    return fiber;
}

void Scheduler::set_thread(int thread) {
    const auto at = static_cast<unsigned>(thread);
    threadIdx = {at % blockDim.x, at / blockDim.x % blockDim.y, at / blockDim.x / blockDim.y};
}

/// Gives the CPU to others until this fiber is made ready.
void Scheduler::wait() {
    Fiber* self = current_;
    switch_to(self->place, main_);
    if (!error_.empty()) throw Stop{};
}

void Scheduler::barrier() {
    if (finished_ > 0) fail("a barrier after some threads of the block have left the kernel");
    at_barrier_.push_back(current_);
    wait();
}

const std::uint64_t* Scheduler::exchange(unsigned mask, std::uint64_t mine) {
    if (mask != 0xffffffffu) fail("a warp operation of part of a warp");
    if (threads_.size() % kWarpSize != 0) fail("a warp operation in a block that is not whole warps");
    Warp& warp = warps_[current_->thread / kWarpSize];
    const int turn = warp.turn;
    warp.words[turn][lane()] = mine;
    if (++warp.arrived < kWarpSize) {
        warp.waiting.push_back(current_);
        wait();
    } else {
        warp.arrived = 0;
        warp.turn = 1 - turn;
        ready_.insert(ready_.end(), warp.waiting.begin(), warp.waiting.end());
        warp.waiting.clear();
    }
    return warp.words[turn];
}

}  // namespace

void fail(const char* what) {
    scheduler->fail(what);
}
void block_barrier() {
    scheduler->barrier();
}
const std::uint64_t* exchange(unsigned mask, std::uint64_t mine) {
    return scheduler->exchange(mask, mine);
}
int lane() {
    return scheduler->lane();
}

const char* launch(const std::function<void()>& kernel, dim3 grid, dim3 block, int order) {
    static Scheduler instance;
    scheduler = &instance;
    instance.run(kernel, grid, block, order);
    return instance.error().empty() ? nullptr : instance.error().c_str();
}

}  // namespace emulator
