// Arguments that several of the bindings take from Python: sizes are (height, width) there.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "geometry.hpp"
#include "native/arguments.hpp"
#include "pixels.hpp"

namespace pybind11::detail {

template <>
class type_caster<atrous::Size> {
  public:
    PYBIND11_TYPE_CASTER(atrous::Size, const_name("tuple[int, int]"));

    bool load(handle source, bool converts) {
        make_caster<std::pair<int, int>> sides;
        if (!sides.load(source, converts)) return false;
        const auto [height, width] = cast_op<std::pair<int, int>>(sides);
        value = {height, width};
        return true;
    }

    static handle cast(const atrous::Size& size, return_value_policy, handle) {
        return make_tuple(size.height, size.width).release();
    }
};

}  // namespace pybind11::detail

namespace atrous {

/// The format of an image [H, W, C], whose pixels are packed.
inline PixelFormat format_of(const pybind11::array& image) {
    const auto name = pybind11::str(image.dtype()).cast<std::string>();
    const auto lies_at = [&](int axis, pybind11::ssize_t bytes) {  // of one element, the stride says nothing
        return image.shape(axis) == 1 || image.strides(axis) == bytes;
    };
    if (image.ndim() != 3 || image.shape(2) < 1 || image.shape(2) > kMaxBands || !lies_at(2, image.itemsize()) ||
        !lies_at(1, image.shape(2) * image.itemsize())) {
        throw pybind11::value_error("the image must be [H, W, C] with packed pixels");
    }
    return {static_cast<int>(image.shape(2)), parse_sample(name)};
}

}  // namespace atrous
