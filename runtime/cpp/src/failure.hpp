// How the library fails inside: an exception that knows its status, and messages from pieces.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "atrous/atrous.h"

namespace atrous::core {

/// Ends a call; crosses the C interface as a status and a text.
class Failure : public std::runtime_error {
  public:
    Failure(atrous_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
    atrous_status status() const { return status_; }

  private:
    atrous_status status_;
};

/// The pieces as one text.
template <typename... Pieces>
std::string text(const Pieces&... pieces) {
    std::ostringstream out;
    (out << ... << pieces);
    return out.str();
}

template <typename... Pieces>
[[noreturn]] void fail(atrous_status status, const Pieces&... pieces) {
    throw Failure(status, text(pieces...));
}

}  // namespace atrous::core
