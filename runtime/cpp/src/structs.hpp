// Structs of the C interface across versions: their first member is the size that the caller's compiler saw.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "failure.hpp"

namespace atrous::core {

/// A caller's struct as this library knows it. Members beyond the caller's size keep the values of `defaults`; bytes
/// beyond the library's must be zero, because ignoring a wish would be worse than refusing it.
template <typename Struct>
Struct read_struct(const Struct* given, Struct defaults, std::size_t least_bytes, const char* name) {
    if (given == nullptr) fail(ATROUS_ERROR_ARGUMENT, name, " is null");
    const std::size_t bytes = given->struct_size;
    if (bytes < least_bytes || bytes > 65536) {
        fail(ATROUS_ERROR_ARGUMENT, name, "->struct_size is ", bytes, "; expected ", sizeof(Struct),
             ". Start from its _INIT macro.");
    }
    const auto* raw = reinterpret_cast<const unsigned char*>(given);
    if (bytes > sizeof(Struct) && std::any_of(raw + sizeof(Struct), raw + bytes, [](unsigned char b) { return b; })) {
        fail(ATROUS_ERROR_ARGUMENT, name, " has members that this version of the library does not know");
    }
    std::memcpy(&defaults, given, std::min(bytes, sizeof(Struct)));
    return defaults;
}

/// Fills a caller's struct as far as the caller knows it.
template <typename Struct>
void write_struct(Struct* given, Struct values, std::size_t least_bytes, const char* name) {
    const Struct before = read_struct(given, values, least_bytes, name);
    values.struct_size = before.struct_size;
    std::memcpy(static_cast<void*>(given), &values, std::min<std::size_t>(before.struct_size, sizeof(Struct)));
}

}  // namespace atrous::core
