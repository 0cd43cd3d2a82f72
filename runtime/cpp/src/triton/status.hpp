// Errors of Triton's C interface: as exceptions inside the backend, and back where Triton calls it.
#pragma once

#include <exception>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>

#include "atrous/atrous.hpp"
#include "triton/core/tritonbackend.h"

namespace atrous::triton {

/// What went wrong, in words, and Triton's code for it.
class Failure : public std::runtime_error {
  public:
    Failure(TRITONSERVER_Error_Code code, const std::string& text) : std::runtime_error(text), code_(code) {}
    TRITONSERVER_Error_Code code() const { return code_; }

  private:
    TRITONSERVER_Error_Code code_;
};

template <typename... Pieces>
[[noreturn]] void fail(TRITONSERVER_Error_Code code, const Pieces&... pieces) {
    std::ostringstream out;
    (out << ... << pieces);
    throw Failure(code, out.str());
}

/// Throws Failure for an error that Triton gives.
inline void require(TRITONSERVER_Error* error) {
    if (error == nullptr) return;
    const Failure failure(TRITONSERVER_ErrorCode(error), TRITONSERVER_ErrorMessage(error));
    TRITONSERVER_ErrorDelete(error);
    throw failure;
}

/// Drops an error that nothing can be done about.
inline void ignore(TRITONSERVER_Error* error) noexcept {
    if (error != nullptr) TRITONSERVER_ErrorDelete(error);
}

inline TRITONSERVER_Error_Code code_of(atrous_status status) noexcept {
    switch (status) {
        case ATROUS_ERROR_ARGUMENT:
        case ATROUS_ERROR_SHAPE:
        case ATROUS_ERROR_CRF:
            return TRITONSERVER_ERROR_INVALID_ARG;
        case ATROUS_ERROR_MEMORY:
            return TRITONSERVER_ERROR_UNAVAILABLE;
        case ATROUS_ERROR_UNAVAILABLE:
            return TRITONSERVER_ERROR_UNSUPPORTED;
        default:
            return TRITONSERVER_ERROR_INTERNAL;
    }
}

/// The exception being handled, as an error of Triton.
inline TRITONSERVER_Error* error_of_exception() noexcept {
    try {
        throw;
    } catch (const Failure& failure) {
        return TRITONSERVER_ErrorNew(failure.code(), failure.what());
    } catch (const Error& error) {
        return TRITONSERVER_ErrorNew(code_of(error.status()), error.what());
    } catch (const std::bad_alloc&) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "not enough memory");
    } catch (const std::exception& error) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, error.what());
    } catch (...) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, "an exception of no known kind");
    }
}

/// Runs what a function of the interface does; no exception leaves it.
template <typename Call>
TRITONSERVER_Error* guarded(const Call& call) noexcept {
    try {
        call();
        return nullptr;
    } catch (...) {
        return error_of_exception();
    }
}

}  // namespace atrous::triton
