// Arguments that several of the bindings take from Python.
#pragma once

#include <string>

#include "mean_field.hpp"
#include "native/arguments.hpp"
#include "native/error.hpp"

namespace atrous {

inline Normalization normalization_from(const std::string& name) {
    if (name == "none") return Normalization::none;
    if (name == "before") return Normalization::before;
    if (name == "after") return Normalization::after;
    if (name == "symmetric") return Normalization::symmetric;
    throw CrfError("unknown normalization '" + name + "': expected none, before, after or symmetric");
}

inline Compatibility compatibility_from(std::size_t channels, const FloatArray& array) {
    Compatibility compatibility;
    const auto size = static_cast<std::size_t>(array.size());
    if (array.ndim() == 1 && size == channels) {
        compatibility.diagonal.assign(array.data(), array.data() + size);
    } else if (array.ndim() == 2 && size == channels * channels) {
        compatibility.matrix.assign(array.data(), array.data() + size);
    } else {
        throw CrfError("a compatibility is a vector of one value a label or a square matrix");
    }
    return compatibility;
}

}  // namespace atrous
