// Engines are foreign code: whatever they throw becomes a Failure.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "failure.hpp"

namespace atrous::core {

/// Calls into an engine; `what` names it and its artifact in messages.
template <typename Call>
auto call_engine(const std::string& what, const Call& call) -> decltype(call()) {
    try {
        return call();
    } catch (const Failure&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        fail(ATROUS_ERROR_ENGINE, what, " failed: ", error.what());
    } catch (...) {
        fail(ATROUS_ERROR_ENGINE, what, " failed with an unknown exception");
    }
}

}  // namespace atrous::core
