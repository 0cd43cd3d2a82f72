// What goes wrong with a caller's values, by the exception of atrous.errors that it becomes in Python.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace atrous {

/// CRF input or state is unusable.
class CrfError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// An image has a size that the network, or whoever works on it, does not take.
class ShapeError : public std::runtime_error {
  public:
    ShapeError(const std::string& text, std::string expected, std::string actual)
        : std::runtime_error(text), expected_(std::move(expected)), actual_(std::move(actual)) {}

    const std::string& expected() const { return expected_; }
    const std::string& actual() const { return actual_; }

  private:
    std::string expected_, actual_;
};

/// An engine does not compute what the manifest says.
class EngineError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

}  // namespace atrous
