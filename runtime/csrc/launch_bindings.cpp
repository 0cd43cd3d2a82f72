// Python face of the frame's launch plans.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <utility>

#include "arguments.hpp"
#include "launch_plan.hpp"

namespace py = pybind11;

namespace atrous {
namespace {

/// An engine's logits, [images, channels, height, width].
using LogitsShape = std::array<int, 4>;

FrameSpec make_frame_spec(const Geometry& geometry, const std::optional<TilePlan>& tiles, const PixelScaling& pixels,
                          bool has_half_input, LogitsShape logits, bool has_half_output, bool align_corners,
                          std::optional<double> threshold) {
    const auto [images, channels, height, width] = logits;
    if (threshold && channels != 1) throw py::value_error("a threshold needs one channel");
    const int classes = threshold ? 2 : channels;
    return {images,         classes,         threshold,       geometry,      tiles,       pixels,
            has_half_input, {height, width}, has_half_output, align_corners, std::nullopt};
}

LogitsShape logits_shape(const FrameSpec& spec) {
    const Size coarse = spec.coarse();
    return {spec.images, spec.channels(), coarse.height, coarse.width};
}

}  // namespace

void bind_frame_plan(py::module_& module) {
    py::class_<FrameSpec>(module, "FrameSpec")
        .def(py::init(&make_frame_spec), py::arg("geometry"), py::arg("tiles"), py::arg("pixels"),
             py::arg("has_half_input"), py::arg("output_shape"), py::arg("has_half_output"), py::arg("align_corners"),
             py::arg("threshold") = py::none())
        .def_readwrite("colors", &FrameSpec::colors)
        .def_property_readonly("logits_shape", &logits_shape);
    module.def("plan_frame", &plan_frame, py::arg("spec"), py::arg("multiprocessors"));
    module.def("plan_overlay", &plan_overlay, py::arg("pixels"), py::arg("alpha"), py::arg("multiprocessors"));
}

}  // namespace atrous
