// Python bindings of the histogram. The Python layer validates values and words the errors.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <iterator>

#include "histogram.hpp"
#include "native/parallel.hpp"

namespace py = pybind11;

namespace atrous {
namespace {

bool add(Histogram& histogram, const py::array_t<float, py::array::c_style>& values, int threads) {
    const float* data = values.data();
    const auto count = static_cast<std::int64_t>(values.size());
    const py::gil_scoped_release released;
    return histogram.add(data, count, resolve_threads(threads));
}

py::array_t<std::int64_t> counts(const Histogram& histogram) {
    const auto& all = histogram.bins().counts;
    return py::array_t<std::int64_t>(kHistogramBins, all);
}

}  // namespace

void bind_calibration(py::module_& module) {
    py::class_<Histogram>(module, "Histogram")
        .def(py::init<>())
        .def("add", &add, py::arg("values").noconvert(), py::arg("threads") = 0,
             "Counts values; False, with none counted, when one is not finite.")
        .def("merge", &Histogram::merge, py::arg("other"))
        .def_property_readonly("counts", &counts)
        .def_property_readonly("exponent", [](const Histogram& self) { return self.bins().exponent; })
        .def_property_readonly("min", [](const Histogram& self) { return self.bins().extremes.min + 0.0f; })  // no -0
        .def_property_readonly("max", [](const Histogram& self) { return self.bins().extremes.max + 0.0f; })
        .def_property_readonly("max_abs", [](const Histogram& self) { return self.bins().extremes.max_abs(); })
        .def_property_readonly("zeros", [](const Histogram& self) { return self.bins().extremes.zeros; })
        .def_property_readonly("elements", [](const Histogram& self) { return self.bins().extremes.elements; });
}

}  // namespace atrous
