// Python face of the filter as an operator, and of inference that can be differentiated.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gradient_bindings.hpp"
#include "mean_field_gradient.hpp"
#include "native/arguments.hpp"
#include "native/error.hpp"
#include "native/parallel.hpp"

namespace py = pybind11;

namespace atrous {
namespace {

py::array_t<float> apply_filter(const Filter& filter, const FloatArray& values, bool is_transposed, int threads) {
    const std::int64_t pixels = filter.lattice().pixels();
    if (values.ndim() != 2 || values.shape(0) < 1 || values.shape(1) != pixels) {
        throw CrfError("values must be [C, " + std::to_string(pixels) + "]");
    }
    const auto channels = static_cast<int>(values.shape(0));
    auto out = pooled_array<float>({values.shape(0), values.shape(1)});
    const float* const from = values.data();
    float* const to = out.mutable_data();
    const py::gil_scoped_release released;
    filter.apply(from, channels, is_transposed ? AxisOrder::reverse : AxisOrder::forward, to, resolve_threads(threads));
    return out;
}

/// (gradient of −U [C, N], gradient of X = −μ of each term [terms, C, C])
std::pair<py::array_t<float>, py::array_t<double>> differentiate(DifferentiableMeanField& field,
                                                                 const FloatArray& marginal_gradient, int iterations,
                                                                 bool is_full) {
    const py::ssize_t channels = field.channels();
    if (marginal_gradient.size() != channels * field.pixels()) {
        throw CrfError("the gradient of the marginals has the wrong size");
    }
    const float* const from = marginal_gradient.data();
    MeanFieldGradient gradient;
    {
        const py::gil_scoped_release released;
        gradient = field.differentiate(from, iterations, is_full, [] {
            const py::gil_scoped_acquire held;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        });
    }
    py::array_t<float> logits({channels, static_cast<py::ssize_t>(field.pixels())});
    std::copy(gradient.logits.begin(), gradient.logits.end(), logits.mutable_data());
    py::array_t<double> terms({static_cast<py::ssize_t>(gradient.terms.size()), channels, channels});
    double* at = terms.mutable_data();
    for (const std::vector<double>& term : gradient.terms) at = std::copy(term.begin(), term.end(), at);
    return {std::move(logits), std::move(terms)};
}

}  // namespace

void bind_filter_apply(py::class_<Filter, std::shared_ptr<Filter>>& filter) {
    filter.def("apply", &apply_filter, py::arg("values"), py::arg("is_transposed") = false, py::arg("threads") = 0);
}

void bind_gradient(py::module_& module) {
    py::class_<DifferentiableMeanField, MeanField<float>>(module, "DifferentiableMeanField")
        .def(py::init([](std::int64_t pixels, int channels, int threads) {
                 if (pixels < 1 || channels < 1) throw CrfError("a CRF needs at least one pixel and one channel");
                 return std::make_unique<DifferentiableMeanField>(pixels, channels, resolve_threads(threads));
             }),
             py::arg("pixels"), py::arg("channels"), py::arg("threads") = 0)
        .def("differentiate", &differentiate, py::arg("marginal_gradient"), py::arg("iterations"), py::arg("is_full"));
}

}  // namespace atrous
