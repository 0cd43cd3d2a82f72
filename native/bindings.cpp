// Python face of what all native code stands on: errors, launch plans and constants of launches.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "arguments.hpp"
#include "error.hpp"
#include "finite.hpp"
#include "launch.hpp"
#include "page_pool.hpp"

namespace py = pybind11;

namespace atrous {
namespace {

void bind_errors() {
    // Looked up when needed: the package that defines the classes is still being imported at this point.
    py::register_exception_translator([](std::exception_ptr failure) {
        try {
            if (failure) std::rethrow_exception(failure);
        } catch (const CrfError& error) {
            py::set_error(py::module_::import("atrous.errors").attr("CRFError"), error.what());
        } catch (const ShapeError& error) {
            const py::object type = py::module_::import("atrous.errors").attr("ShapeError");
            const py::object value =
                type(error.what(), py::arg("expected") = error.expected(), py::arg("actual") = error.actual());
            PyErr_SetObject(type.ptr(), value.ptr());
        } catch (const EngineError& error) {
            py::set_error(py::module_::import("atrous.errors").attr("EngineError"), error.what());
        }
    });
}

void bind_plans(py::module_& module) {
    py::class_<Slot>(module, "Slot")
        .def_readonly("buffer", &Slot::buffer)
        .def_readonly("offset", &Slot::offset)
        .def_readonly("nbytes", &Slot::bytes);
    py::class_<Launch>(module, "PlannedLaunch")
        .def_readonly("kernel", &Launch::kernel)
        .def_readonly("grid", &Launch::blocks)
        .def_property_readonly("block", [](const Launch& launch) { return std::pair(launch.width, launch.height); })
        .def_readonly("args", &Launch::arguments);
    py::class_<Fill>(module, "PlannedFill").def_readonly("target", &Fill::target).def_readonly("word", &Fill::word);
    py::class_<Copy>(module, "PlannedCopy").def_readonly("source", &Copy::source).def_readonly("target", &Copy::target);
    py::class_<Inference>(module, "PlannedInference")
        .def_readonly("input", &Inference::input)
        .def_readonly("logits", &Inference::logits);
    py::class_<Step>(module, "Step")
        .def_readonly("work", &Step::work)
        .def_readonly("part", &Step::part)
        .def_readonly("lattice", &Step::lattice);
    py::class_<PlannedBuffer>(module, "PlannedBuffer")
        .def_readonly("name", &PlannedBuffer::name)
        .def_readonly("nbytes", &PlannedBuffer::bytes)
        .def_property_readonly("use", [](const PlannedBuffer& buffer) {
            constexpr const char* names[] = {"kept", "scratch", "given"};
            return names[static_cast<int>(buffer.use)];
        });
    py::class_<Content>(module, "Content")
        .def_readonly("buffer", &Content::buffer)
        .def_property_readonly("values", [](const Content& content) -> py::object {
            return std::visit(
                [](const auto& values) -> py::object {
                    using Value = typename std::decay_t<decltype(values)>::value_type;
                    if constexpr (std::is_arithmetic_v<Value>) {
                        return py::array_t<Value>(static_cast<py::ssize_t>(values.size()), values.data());
                    } else {
                        return py::cast(values);
                    }
                },
                content.values);
        });
    py::class_<LaunchPlan>(module, "LaunchPlan")
        .def_readonly("buffers", &LaunchPlan::buffers)
        .def_readonly("contents", &LaunchPlan::contents)
        .def_readonly("sequences", &LaunchPlan::sequences);
}

bool is_finite(const FloatArray& values) {
    const float* data = values.data();
    const auto count = static_cast<std::int64_t>(values.size());
    const py::gil_scoped_release released;
    return all_finite(data, count);
}

}  // namespace

void bind_native(py::module_& module) {
    bind_errors();
    bind_plans(module);
    module.def("release_pages", &release_pages, py::call_guard<py::gil_scoped_release>());
    module.def("pool_bytes", [] {
        const PoolBytes bytes = pool_bytes();
        return std::tuple(bytes.in_use, bytes.kept, bytes.limit);
    });
    module.def("all_finite", &is_finite, py::arg("values"), "True when no value is NaN or infinite.");
    py::dict constants;
    constants["kThreads"] = kThreads;
    constants["kWarp"] = kWarp;
    constants["kBlocksPerMultiprocessor"] = kBlocksPerMultiprocessor;
    module.attr("KERNEL_CONSTANTS") = constants;  // to which others add
}

}  // namespace atrous
