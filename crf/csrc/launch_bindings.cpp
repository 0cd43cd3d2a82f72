// Python face of the field's launch plans.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>

#include "arguments.hpp"
#include "launch_plan.hpp"

namespace py = pybind11;

namespace atrous {
namespace {

FieldSpec make_field_spec(std::array<int, 4> shape, bool has_fractions, int iterations,
                          const std::string& normalization, std::array<double, 6> params, int vertices_per_pixel) {
    const auto [images, classes, height, width] = shape;
    const auto [bilateral_weight, bilateral_sigma_xy_px, bilateral_sigma_rgb, gaussian_weight, gaussian_sigma,
                unary_temperature] = params;
    return {classes,
            height,
            width,
            iterations,
            {bilateral_weight, bilateral_sigma_xy_px, bilateral_sigma_rgb, gaussian_weight, gaussian_sigma,
             unary_temperature},
            has_fractions,
            normalization_from(normalization),
            images,
            vertices_per_pixel};
}

LatticeSpec make_lattice_spec(std::array<int, 3> shape, int corners, std::int64_t capacity,
                              const std::string& normalization, std::array<float, 2> sigmas) {
    const auto [images, height, width] = shape;
    return {{images, height, width}, corners, capacity, false, normalization_from(normalization), sigmas[0], sigmas[1]};
}

void bind_specs(py::module_& module) {
    py::class_<RowStorage>(module, "RowStorage")
        .def_property_readonly("stride", &RowStorage::stride)
        .def_property_readonly("row_bytes", &RowStorage::row_bytes);
    py::class_<LatticeSpec>(module, "LatticeSpec")
        .def(py::init(&make_lattice_spec), py::arg("shape"), py::arg("corners"), py::arg("capacity"),
             py::arg("normalization"), py::arg("sigmas"))
        .def_property_readonly("name", &LatticeSpec::name)
        .def_readonly("corners", &LatticeSpec::corners)
        .def_readonly("capacity", &LatticeSpec::capacity)
        .def_property_readonly("entries", &LatticeSpec::entries)
        .def_property_readonly("slices", &LatticeSpec::slices);
    py::class_<FieldSpec>(module, "FieldSpec")
        .def(py::init(&make_field_spec), py::arg("shape"), py::arg("has_fractions"), py::arg("iterations"),
             py::arg("normalization"), py::arg("params"), py::arg("vertices_per_pixel"))
        .def_property_readonly("storage", &FieldSpec::storage)
        .def_property_readonly("gaussian", &FieldSpec::gaussian)
        .def_property_readonly("bilateral", &FieldSpec::bilateral)
        .def_property_readonly("can_grow", [](const FieldSpec& spec) { return spec.grown().has_value(); })
        .def("estimate_bytes", &FieldSpec::estimate_bytes)
        .def("describe", &FieldSpec::describe)
        .def("check_sigmas", &check_sigmas, py::arg("failures"), py::arg("is_build"));
}

}  // namespace

void bind_launch_plan(py::module_& module) {
    bind_specs(module);
    module.def(
        "plan_field",
        [](const FieldSpec& spec, const std::pair<FloatArray, FloatArray>& compatibilities, int multiprocessors,
           std::optional<std::int64_t> gaussian_vertices) {
            const auto channels = static_cast<std::size_t>(spec.classes);
            const KernelCompatibilities both{compatibility_from(channels, compatibilities.first),
                                             compatibility_from(channels, compatibilities.second)};
            return plan_field(spec, both, multiprocessors, gaussian_vertices);
        },
        py::arg("spec"), py::arg("compatibilities"), py::arg("multiprocessors"),
        py::arg("gaussian_vertices") = py::none());
    module.def("plan_lattice", &plan_lattice, py::arg("spec"), py::arg("multiprocessors"));
    module.def("plan_sorting", &plan_sorting, py::arg("count"), py::arg("high"), py::arg("multiprocessors"));
    const std::pair<const char*, int> values[] = {{"kSlice", kSlice},
                                                  {"kPlaneTile", kPlaneTile},
                                                  {"kPlaneRows", kPlaneRows},
                                                  {"kScanTile", kScanTile},
                                                  {"kSortTile", kSortTile},
                                                  {"kDigitBits", kDigitBits},
                                                  {"kKeyRange", kKeyRange},
                                                  {"kTableFull", kTableFull},
                                                  {"kNotFinite", kNotFinite},
                                                  {"kNotProbability", kNotProbability},
                                                  {"report_bytes", static_cast<int>(sizeof(FieldReport))}};
    for (const auto& [name, value] : values) module.attr("KERNEL_CONSTANTS")[name] = value;
}

}  // namespace atrous
