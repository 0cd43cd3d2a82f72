// Python face of geometry, tiles and resizing.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "geometry.hpp"
#include "native/error.hpp"
#include "native/parallel.hpp"
#include "resampling.hpp"
#include "resize.hpp"
#include "tiling.hpp"

namespace py = pybind11;

namespace atrous {
namespace {

std::vector<std::pair<int, int>> origins_of(const TilePlan& plan) {
    std::vector<std::pair<int, int>> origins;
    for (const int top : plan.tops) {
        for (const int left : plan.lefts) origins.emplace_back(top, left);
    }
    return origins;
}

/// [C, h, w], of the whole.
py::array_t<float> blend(const TilePlan& plan, const py::function& infer) {
    FloatArray tile;  // stays until it is blended
    std::vector<float> blended;
    const auto infer_tile = [&](int top, int left) -> Logits {
        tile = infer(top, left).cast<FloatArray>();
        if (tile.ndim() != 3) throw py::value_error("logits of a tile are [C, h, w]");
        return {tile.data(),
                static_cast<int>(tile.shape(0)),
                {static_cast<int>(tile.shape(1)), static_cast<int>(tile.shape(2))}};
    };
    const Logits whole = blend_tiles(plan, infer_tile, blended);
    return py::array_t<float>({whole.channels, whole.size.height, whole.size.width}, whole.values);
}

py::array resize_image(const py::array& given, const Size& size, int threads) {
    const py::array image = py::array::ensure(given, py::array::c_style);  // pixels of a view may lie apart
    const PixelFormat format = format_of(image);
    const Size from{static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1))};
    if (from.area() == 0 || size.area() == 0) throw py::value_error("neither image may be empty");
    py::array out(image.dtype(), {size.height, size.width, format.channels});
    const void* source = image.data();
    const auto row_bytes = static_cast<std::int64_t>(image.strides(0));
    void* target = out.mutable_data();
    const py::gil_scoped_release released;
    resize_pixels(source, format, from, row_bytes, size, resolve_threads(threads), target);
    return out;
}

Geometry make_geometry(const Size& image, const Size& input, const std::string& resize) {
    for (const Size& size : {image, input}) {
        if (std::min(size.height, size.width) < 1) {
            throw ShapeError("a size must be at least 1x1, got " + to_text(size), "at least 1x1", to_text(size));
        }
    }
    const Geometry geometry{image, input, parse_resize(resize)};
    geometry.content();
    return geometry;
}

/// (height, width) of what the image covers of an input, and (top, left).
std::pair<Size, std::pair<int, int>> place(const Size& image, const Size& input, const std::string& resize) {
    const Window window = place_image(image, input, parse_resize(resize));
    return {window.size, {window.top, window.left}};
}

}  // namespace

void bind_geometry(py::module_& module) {
    py::class_<SizePolicy>(module, "SizePolicy")
        .def(py::init([](const Size& min, const Size& opt, const Size& max, int multiple, int offset) {
                 return SizePolicy{min, opt, max, multiple, offset};
             }),
             py::arg("min"), py::arg("opt"), py::arg("max"), py::arg("multiple"), py::arg("offset"));
    py::class_<Geometry>(module, "Geometry")
        .def(py::init(&make_geometry), py::arg("image_size"), py::arg("input_size"), py::arg("resize"))
        .def_readonly("image_size", &Geometry::image)
        .def_readonly("input_size", &Geometry::input)
        .def_property_readonly("resize", [](const Geometry& geometry) { return to_text(geometry.resize); })
        .def("__reduce__", [](const py::object& self) {
            const py::tuple arguments =
                py::make_tuple(self.attr("image_size"), self.attr("input_size"), self.attr("resize"));
            return py::make_tuple(py::type::of(self), arguments);
        });
    py::class_<TilePlan>(module, "TilePlan")
        .def_readonly("tile_size", &TilePlan::tile)
        .def_property_readonly("origins", &origins_of)
        .def_readonly("full_size", &TilePlan::full)
        .def("coarse_size", &TilePlan::coarse, py::arg("size"));
    module.def("fit_size", &fit_length, py::arg("length"), py::arg("multiple"), py::arg("offset"));
    module.def("place_image", &place, py::arg("image_size"), py::arg("input_size"), py::arg("resize"));
    module.def(
        "plan_geometry",
        [](const Size& image, const SizePolicy& policy, const std::string& resize) {
            return plan_geometry(image, policy, parse_resize(resize));
        },
        py::arg("image_size"), py::arg("policy"), py::arg("resize"));
    module.def("needs_tiles", &needs_tiles, py::arg("geometry"), py::arg("policy"));
    module.def("plan_tiles", &plan_tiles, py::arg("geometry"), py::arg("policy"), py::arg("stride"));
    module.def("blend_tiles", &blend, py::arg("plan"), py::arg("infer"));
    module.def("resize_image", &resize_image, py::arg("image"), py::arg("size"), py::arg("threads") = 0);
}

}  // namespace atrous
