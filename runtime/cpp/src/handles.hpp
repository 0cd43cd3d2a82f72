// Handles of the C interface: numbers, looked up on every use. So one that was closed, or never was one, is found out,
// and an object lives as long as a call that began before it was closed.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "failure.hpp"

namespace atrous::core {

/// The next number, of any kind of handle: none is ever used twice.
std::uintptr_t next_handle();

/// All open handles of one kind. `Face` is the C interface's name for it, a type without members.
template <typename Face, typename Object>
class Handles {
  public:
    explicit Handles(const char* kind) : kind_(kind) {}

    Face* add(std::shared_ptr<Object> object) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const std::uintptr_t number = next_handle();
        open_.emplace(number, std::move(object));
        return reinterpret_cast<Face*>(number);
    }

    std::shared_ptr<Object> find(const Face* handle) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto entry = open_.find(reinterpret_cast<std::uintptr_t>(handle));
        if (entry == open_.end()) refuse(handle);
        return entry->second;
    }

    /// The object, no longer open.
    std::shared_ptr<Object> take(const Face* handle) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto entry = open_.find(reinterpret_cast<std::uintptr_t>(handle));
        if (entry == open_.end()) refuse(handle);
        std::shared_ptr<Object> object = std::move(entry->second);
        open_.erase(entry);
        return object;
    }

  private:
    [[noreturn]] void refuse(const Face* handle) const {
        if (handle == nullptr) fail(ATROUS_ERROR_HANDLE, "the ", kind_, " handle is null");
        fail(ATROUS_ERROR_HANDLE, "invalid ", kind_, " handle: already closed, or a handle of another kind");
    }

    const char* kind_;
    std::mutex mutex_;
    std::unordered_map<std::uintptr_t, std::shared_ptr<Object>> open_;
};

}  // namespace atrous::core
