#pragma once

#include <stdexcept>

namespace atrous {

/// CRF input or state is unusable; becomes atrous.CRFError in Python.
class CrfError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

}  // namespace atrous
