// GPU work as data: kernels, fills and copies on parts of named buffers. A plan is made once, and replayed by
// gpu/replay.py and by runtime/cpp/src/cuda/replay.cpp; nothing here needs CUDA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "native/kernels/grid.cuh"

namespace atrous {

/// Part of a buffer of a plan.
struct Slot {
    std::string buffer;
    std::int64_t offset, bytes;

    Slot part(std::int64_t at, std::int64_t count) const { return {buffer, offset + at, count}; }
};

/// An argument of exactly the parameter's type; a slot for a pointer.
using Argument = std::variant<Slot, std::int32_t, float>;

/// One kernel: `blocks` blocks of `width` × `height` threads.
struct Launch {
    std::string kernel;
    std::int64_t blocks;
    int width, height;
    std::vector<Argument> arguments;
};

/// Sets every 32-bit word.
struct Fill {
    Slot target;
    std::uint32_t word;
};

/// Copies on the device.
struct Copy {
    Slot source, target;
};

/// One inference of the network, by whoever has its engine.
struct Inference {
    Slot input, logits;
};

using Work = std::variant<Launch, Fill, Copy, Inference>;

/// A piece of work, and what it belongs to: of a field "input", "construction", "iteration" or "output", of a frame
/// "preprocess", "inference" or "postprocess"; the lattice's name or "".
struct Step {
    Work work;
    std::string part, lattice;
};

using Sequence = std::vector<Step>;

/// Whose content a buffer has.
enum class BufferUse {
    kept,     ///< the plan's: it lasts from one sequence to the next
    scratch,  ///< nobody's: it lasts within a sequence or, of a lattice that is built, within its construction
    given,    ///< the caller's, who may pass other memory with each replay
};

struct PlannedBuffer {
    std::string name;
    std::int64_t bytes;
    BufferUse use;
};

/// 64-bit words, of which some are addresses of buffers.
using Words = std::vector<std::variant<Slot, std::int64_t>>;

/// What a buffer holds from the start.
struct Content {
    std::string buffer;
    std::variant<std::vector<float>, std::vector<std::int32_t>, Words> values;
};

/// All memory and work of something that runs on a GPU.
struct LaunchPlan {
    std::vector<PlannedBuffer> buffers;
    std::vector<Content> contents;
    std::map<std::string, Sequence> sequences;
};

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

/// Writes down a plan, with the launch shapes that all kernels share.
class PlanWriter {
  public:
    explicit PlanWriter(int multiprocessors) : max_blocks_(std::int64_t{multiprocessors} * kBlocksPerMultiprocessor) {}

    /// A buffer, which the plan has if it is given or anything uses it. Of two sizes under one name the larger holds.
    void declare(const std::string& name, std::int64_t bytes, BufferUse use);
    /// A whole buffer.
    Slot operator[](const std::string& name) const { return {name, 0, declared_.at(name).bytes}; }
    void set_content(Content content) { plan_.contents.push_back(std::move(content)); }
    /// Declares a buffer with its content.
    template <typename Value>
    Slot table(const std::string& name, std::vector<Value> values) {
        declare(name, static_cast<std::int64_t>(values.size() * sizeof(Value)), BufferUse::kept);
        set_content({name, std::move(values)});
        return (*this)[name];
    }

    /// What the steps from here on belong to.
    void begin_sequence(const std::string& name) { sequence_ = name; }
    void begin(std::string part, std::string lattice = "");

    /// One thread for each of `count` items.
    template <typename... Values>
    void each(std::string kernel, std::int64_t count, const Values&... values) {
        const std::int64_t blocks = std::min(ceil_div(count, kThreads), max_blocks_);
        add(Launch{std::move(kernel), blocks, kThreads, 1, {argument(values)...}});
    }

    /// Exactly `blocks` blocks.
    template <typename... Values>
    void tiles(std::string kernel, std::int64_t blocks, int width, int height, const Values&... values) {
        add(Launch{std::move(kernel), blocks, width, height, {argument(values)...}});
    }

    /// `lanes` threads side by side for each of `count` rows.
    template <typename... Values>
    void rows(std::string kernel, std::int64_t count, int lanes, const Values&... values) {
        const int rows_of_block = kThreads / lanes;
        const std::int64_t blocks = std::min(ceil_div(count, rows_of_block), max_blocks_);
        add(Launch{std::move(kernel), blocks, lanes, rows_of_block, {argument(values)...}});
    }

    void fill(const Slot& target, std::uint32_t word) { add(Fill{target, word}); }
    void copy(const Slot& source, const Slot& target) { add(Copy{source, target}); }
    void infer(const Slot& input, const Slot& logits) { add(Inference{input, logits}); }

    LaunchPlan take();

  private:
    template <typename Value>
    static Argument argument(const Value& value) {
        if constexpr (std::is_integral_v<Value>) {
            return static_cast<std::int32_t>(value);  // whoever plans has checked that indices fit
        } else {
            return value;
        }
    }

    void add(Work work);

    std::int64_t max_blocks_;
    std::map<std::string, PlannedBuffer> declared_;
    std::string sequence_, part_, lattice_;
    LaunchPlan plan_;
};

}  // namespace atrous
