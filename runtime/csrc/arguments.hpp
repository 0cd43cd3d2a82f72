// Arguments that several of the bindings take from Python: sizes are (height, width) there.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "geometry.hpp"
#include "native/arguments.hpp"

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
