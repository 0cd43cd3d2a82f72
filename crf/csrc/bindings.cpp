// Python face of the dense CRF core. Shapes are checked here as far as memory safety needs it; messages for people are
// the business of the Python layer.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "gradient_bindings.hpp"
#include "mean_field.hpp"
#include "native/error.hpp"
#include "native/parallel.hpp"
#include "stepped_mean_field.hpp"

namespace py = pybind11;

namespace atrous {

void bind_launch_plan(py::module_& module);

namespace {

void build_filter(Filter& filter, const FeatureSource& source, const std::string& normalization, int threads) {
    const Normalization kind = normalization_from(normalization);
    const py::gil_scoped_release released;
    filter.build(source, kind, resolve_threads(threads));
}

void build_bilateral(Filter& filter, const ByteArray& image, std::pair<float, float> sigma_xy_px,
                     std::array<float, 3> sigma_rgb, const std::string& normalization, int threads) {
    if (image.ndim() != 3 || image.shape(2) != 3) throw CrfError("the image must be [H, W, 3] uint8");
    const float sigmas[3] = {sigma_rgb[0], sigma_rgb[1], sigma_rgb[2]};
    const ColourFeatures source(image.data(), static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1)),
                                sigma_xy_px.first, sigma_xy_px.second, sigmas);
    build_filter(filter, source, normalization, threads);
}

void build_from_features(Filter& filter, const FloatArray& features, const std::string& normalization, int threads) {
    if (features.ndim() != 2) throw CrfError("features must be [D, N]");
    const ArrayFeatures source(features.data(), static_cast<int>(features.shape(0)), features.shape(1));
    build_filter(filter, source, normalization, threads);
}

/// The planar array [classes, pixels] (any trailing shape), or CrfError.
template <typename T>
const float* planar_data(const MeanField<T>& field, const FloatArray& array, int classes) {
    if (array.ndim() >= 2 && array.shape(0) == classes && array.size() == classes * field.pixels()) return array.data();
    throw CrfError("expected an array of " + std::to_string(classes) + " channels and " +
                   std::to_string(field.pixels()) + " pixels");
}

/// The given subset or, without one, all classes.
template <typename T>
ClassSubset subset_of(const MeanField<T>& field, const std::optional<ClassSubset>& given) {
    if (!given) return ClassSubset::all(field.channels());
    if (static_cast<int>(given->kept.size()) != field.channels()) {
        throw CrfError("the CRF has " + std::to_string(field.channels()) + " channels; the subset keeps " +
                       std::to_string(given->kept.size()));
    }
    return *given;
}

/// Ctrl-C stops between two updates.
void check_signals() {
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

template <typename T>
void infer(MeanField<T>& field, int iterations) {
    const py::gil_scoped_release released;
    field.infer(iterations, [] {
        const py::gil_scoped_acquire held;
        check_signals();
    });
}

void run_steps(SteppedMeanField& field, int steps) {
    for (int step = 0; step < steps; ++step) {
        {
            const py::gil_scoped_release released;
            field.step();
        }
        check_signals();
    }
}

template <typename T>
py::array_t<float> marginals_of(const MeanField<T>& field, const std::optional<ClassSubset>& given) {
    const ClassSubset subset = subset_of(field, given);
    auto out = pooled_array<float>({subset.classes, static_cast<py::ssize_t>(field.pixels())});
    float* data = out.mutable_data();
    const py::gil_scoped_release released;
    field.read_marginals(data, subset);
    return out;
}

template <typename Label, typename T>
py::array read_labels(const MeanField<T>& field, const ClassSubset& subset) {
    py::array_t<Label> out(static_cast<py::ssize_t>(field.pixels()));
    Label* data = out.mutable_data();
    const py::gil_scoped_release released;
    field.read_labels(data, subset);
    return out;
}

/// uint8, or uint16 of more than 256 classes.
template <typename T>
py::array labels_of(const MeanField<T>& field, const std::optional<ClassSubset>& given) {
    const ClassSubset subset = subset_of(field, given);
    return subset.classes > 256 ? read_labels<std::uint16_t>(field, subset) : read_labels<std::uint8_t>(field, subset);
}

template <typename Field>
std::unique_ptr<Field> make_field(std::int64_t pixels, int channels, int threads) {
    if (pixels < 1 || channels < 1) throw CrfError("a CRF needs at least one pixel and one channel");
    return std::make_unique<Field>(pixels, channels, resolve_threads(threads));
}

template <typename T>
void bind_mean_field(py::module_& module, const char* name) {
    using Field = MeanField<T>;
    py::class_<Field>(module, name)
        .def(py::init(&make_field<Field>), py::arg("pixels"), py::arg("channels"), py::arg("threads") = 0)
        .def(
            "set_unary_from_probabilities",
            [](Field& field, const FloatArray& probabilities, const std::optional<ClassSubset>& given,
               float temperature) {
                const ClassSubset subset = subset_of(field, given);
                const float* data = planar_data(field, probabilities, subset.classes);
                const py::gil_scoped_release released;
                return field.set_unary_from_probabilities(data, subset, temperature);
            },
            py::arg("probabilities"), py::arg("subset") = py::none(), py::arg("temperature") = 1.0f)
        .def(
            "add_term",
            [](Field& field, std::shared_ptr<Filter> filter, const FloatArray& compatibility) {
                field.add_term(std::move(filter), compatibility_from(field.channels(), compatibility));
            },
            py::arg("filter"), py::arg("compatibility"))
        .def_property_readonly("terms", &Field::terms)
        .def(
            "replace_filter",
            [](Field& field, std::size_t term, std::shared_ptr<Filter> filter) {
                field.replace_filter(term, std::move(filter));
            },
            py::arg("term"), py::arg("filter"))
        .def("infer", &infer<T>, py::arg("iterations"))
        .def("marginals", &marginals_of<T>, py::arg("subset") = py::none())
        .def("labels", &labels_of<T>, py::arg("subset") = py::none());
}

void bind_stepped_mean_field(py::module_& module) {
    using Release = py::call_guard<py::gil_scoped_release>;
    py::class_<SteppedMeanField, MeanField<float>>(module, "SteppedMeanField")
        .def(py::init(&make_field<SteppedMeanField>), py::arg("pixels"), py::arg("channels"), py::arg("threads") = 0)
        .def(
            "set_unary",
            [](SteppedMeanField& field, const FloatArray& unary) {
                const float* data = planar_data(field, unary, field.channels());
                const py::gil_scoped_release released;
                return field.set_unary(data);
            },
            py::arg("unary"))
        .def("start", &SteppedMeanField::start, Release())
        .def("run", &run_steps, py::arg("steps"))
        .def(
            "set_marginals",
            [](SteppedMeanField& field, const FloatArray& marginals) {
                const float* data = planar_data(field, marginals, field.channels());
                const py::gil_scoped_release released;
                return field.write_marginals(data);
            },
            py::arg("marginals"))
        .def("kl_divergence", &SteppedMeanField::kl_divergence, Release());
}

void bind_class_subset(py::module_& module) {
    py::class_<ClassSubset>(module, "ClassSubset")
        .def_readonly("classes", &ClassSubset::classes)
        .def_readonly("kept", &ClassSubset::kept)
        .def_property_readonly("left_out", &ClassSubset::left_out)
        .def_property_readonly("kept_mass", &ClassSubset::kept_mass);
    module.def(
        "likely_classes",
        [](const FloatArray& probabilities, float floor, float temperature, int threads) {
            if (probabilities.ndim() < 2 || probabilities.size() == 0) throw CrfError("probabilities must be [C, ...]");
            const auto classes = static_cast<int>(probabilities.shape(0));
            const float* data = probabilities.data();
            const auto pixels = static_cast<std::int64_t>(probabilities.size()) / classes;
            const py::gil_scoped_release released;
            return likely_classes(data, classes, pixels, floor, temperature, resolve_threads(threads));
        },
        py::arg("probabilities"), py::arg("floor"), py::arg("temperature") = 1.0f, py::arg("threads") = 0);
    module.def("check_class_floor", &check_class_floor, py::arg("floor"), py::arg("gaussian_weight"),
               py::arg("bilateral_weight"));
    module.attr("PROBABILITY_FLOOR") = kProbabilityFloor;
}

}  // namespace

void bind_crf(py::module_& module) {
    bind_class_subset(module);
    py::class_<Filter, std::shared_ptr<Filter>> filter(module, "Filter");
    filter.def(py::init<bool>(), py::arg("takes_fractions") = false)
        .def(
            "build_gaussian",
            [](Filter& filter, int height, int width, std::pair<float, float> sigma_xy_px,
               const std::string& normalization, int threads) {
                const PositionFeatures source(height, width, sigma_xy_px.first, sigma_xy_px.second);
                build_filter(filter, source, normalization, threads);
            },
            py::arg("height"), py::arg("width"), py::arg("sigma_xy_px"), py::arg("normalization") = "symmetric",
            py::arg("threads") = 0)
        .def("build_bilateral", &build_bilateral, py::arg("image"), py::arg("sigma_xy_px"), py::arg("sigma_rgb"),
             py::arg("normalization") = "symmetric", py::arg("threads") = 0)
        .def("build_from_features", &build_from_features, py::arg("features"), py::arg("normalization") = "symmetric",
             py::arg("threads") = 0)
        .def_property_readonly("pixels", [](const Filter& filter) { return filter.lattice().pixels(); })
        .def_property_readonly("vertices", [](const Filter& filter) { return filter.lattice().vertices(); })
        .def_property_readonly("nbytes", [](const Filter& filter) { return filter.lattice().bytes(); });
    bind_filter_apply(filter);
    bind_mean_field<float>(module, "MeanField");
    bind_mean_field<Fraction>(module, "FractionMeanField");
    bind_stepped_mean_field(module);
    bind_gradient(module);
    bind_launch_plan(module);
}

}  // namespace atrous
