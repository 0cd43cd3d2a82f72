// Arrays that bindings take from Python, where what lies otherwise in memory is copied, and give to it.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "native/buffer.hpp"

namespace atrous {

using FloatArray = pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>;
using ByteArray = pybind11::array_t<std::uint8_t, pybind11::array::c_style>;

/// An uninitialised array, whose memory is a Buffer's.
template <typename T>
pybind11::array_t<T> pooled_array(const std::vector<pybind11::ssize_t>& shape) {
    std::size_t size = 1;
    for (const pybind11::ssize_t length : shape) size *= static_cast<std::size_t>(length);
    auto buffer = std::make_unique<Buffer<T>>(size);
    T* const data = buffer->data();
    const pybind11::capsule owner(buffer.get(), [](void* memory) { delete static_cast<Buffer<T>*>(memory); });
    static_cast<void>(buffer.release());
    return pybind11::array_t<T>(shape, data, owner);
}

}  // namespace atrous
