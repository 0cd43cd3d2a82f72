// Arguments that several of the bindings take from Python.
#pragma once

#include <pybind11/numpy.h>

#include <string>

#include "error.hpp"
#include "mean_field.hpp"

namespace atrous {

using FloatArray = pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>;

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
