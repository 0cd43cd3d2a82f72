#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "mean_field.hpp"

namespace atrous {

void bind_filter_apply(pybind11::class_<Filter, std::shared_ptr<Filter>>& filter);
/// After the binding of MeanField<float>, which it derives from.
void bind_gradient(pybind11::module_& module);

}  // namespace atrous
