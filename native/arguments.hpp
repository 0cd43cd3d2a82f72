// Arrays that bindings take from Python; what lies otherwise in memory is copied.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

namespace atrous {

using FloatArray = pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>;
using ByteArray = pybind11::array_t<std::uint8_t, pybind11::array::c_style>;

}  // namespace atrous
