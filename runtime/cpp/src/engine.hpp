// Engines on the CPU behind one interface. Another one is another class here and an entry in the catalogue
// (catalogue.hpp).
#pragma once

#include <memory>

#include "runtime/csrc/tiling.hpp"

namespace atrous::core {

using atrous::Logits;

/// One inference at a time, with memory of its own; a call borrows one.
class Session {
  public:
    Session() = default;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    virtual ~Session() = default;

    /// Where a prepared image [3, height, width] of that size is to be written; valid until the next call.
    virtual float* input(const Size& size) = 0;
    /// Coarse logits of what was written there; valid until the next call.
    virtual Logits run() = 0;
};

/// A loaded artifact; safe to use from many threads.
class Engine {
  public:
    Engine() = default;
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    virtual ~Engine() = default;

    virtual std::unique_ptr<Session> make_session() = 0;
};

}  // namespace atrous::core
