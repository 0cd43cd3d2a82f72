// Python face of the image kernels. Values and messages for people are checked by the Python layer; shapes are checked
// here as far as memory safety needs it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "image.hpp"
#include "native/parallel.hpp"
#include "resample.hpp"
#include "resampling.hpp"

namespace py = pybind11;

namespace atrous {

void bind_geometry(py::module_& module);
void bind_frame_plan(py::module_& module);

namespace {

Resampling make_resampling(int length, int out_length) {
    if (length < 1 || out_length < 1) throw py::value_error("an axis has at least one pixel");
    return {length, out_length};
}

py::array_t<std::int32_t> first_of(const Resampling& plan) {
    return py::array_t<std::int32_t>(static_cast<py::ssize_t>(plan.first.size()), plan.first.data());
}

/// [outputs, taps]
py::array_t<std::int32_t> weights_of(const Resampling& plan) {
    const auto outputs = static_cast<py::ssize_t>(plan.first.size());
    return py::array_t<std::int32_t>({outputs, static_cast<py::ssize_t>(plan.taps)}, plan.weights.data());
}

ResampleShape shape_of(const FloatArray& logits, const Geometry& geometry, bool align_corners) {
    if (logits.ndim() != 3 || logits.size() == 0 || logits.shape(0) > kMaxLabels) {
        throw py::value_error("logits must be [C, h, w] with 1 to 65536 channels");
    }
    const Size coarse{static_cast<int>(logits.shape(1)), static_cast<int>(logits.shape(2))};
    const Sampling sampling = plan_sampling(geometry, coarse, align_corners);
    return {static_cast<int>(logits.shape(0)), coarse, geometry.image, sampling};
}

template <typename Label>
py::array labels_as(const FloatArray& logits, const ResampleShape& shape, int threads) {
    py::array_t<Label> labels({shape.out.height, shape.out.width});
    const float* source = logits.data();
    Label* target = labels.mutable_data();
    const py::gil_scoped_release released;
    resample_labels(source, shape, resolve_threads(threads), target);
    return labels;
}

/// uint8, or uint16 of more than 256 channels.
py::array upsample_labels(const FloatArray& logits, const Geometry& geometry, bool align_corners, int threads) {
    const ResampleShape shape = shape_of(logits, geometry, align_corners);
    return (shape.channels > 256 ? labels_as<std::uint16_t> : labels_as<std::uint8_t>)(logits, shape, threads);
}

template <void (*resample)(const float*, const ResampleShape&, int, float*)>
py::array_t<float> upsample_maps(const FloatArray& logits, const Geometry& geometry, bool align_corners, int threads) {
    const ResampleShape shape = shape_of(logits, geometry, align_corners);
    py::array_t<float> maps({shape.channels, shape.out.height, shape.out.width});
    const float* source = logits.data();
    float* target = maps.mutable_data();
    const py::gil_scoped_release released;
    resample(source, shape, resolve_threads(threads), target);
    return maps;
}

py::array_t<float> normalize(const py::array& image, const PixelScaling& scaling, const Size& out_size,
                             std::pair<int, int> origin, int threads) {
    if (format_of(image) != scaling.format()) {
        throw py::value_error(std::string("the image must be [H, W, ") + std::to_string(scaling.mean.size()) + "] " +
                              to_text(scaling.sample) + " with packed pixels");
    }
    const auto [top, left] = origin;
    const Size size{static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1))};
    if (top < 0 || left < 0 || out_size.height - top < size.height || out_size.width - left < size.width) {
        throw py::value_error("the output is smaller than the image");
    }
    const Window window{top, left, size};
    py::array_t<float> out({scaling.format().channels, out_size.height, out_size.width});
    const void* source = image.data();
    const auto row_bytes = static_cast<std::int64_t>(image.strides(0));
    float* target = out.mutable_data();
    const py::gil_scoped_release released;
    normalize_image(source, window, row_bytes, scaling, out_size, resolve_threads(threads), target);
    return out;
}

py::array_t<std::uint8_t> color(const py::array& image, const BandColors& colors, int threads) {
    if (format_of(image) != colors.format) throw py::value_error("the image has other bands than its colours");
    const Size size{static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1))};
    py::array_t<std::uint8_t> out({size.height, size.width, 3});
    const void* source = image.data();
    const auto row_bytes = static_cast<std::int64_t>(image.strides(0));
    std::uint8_t* target = out.mutable_data();
    const py::gil_scoped_release released;
    color_bands(source, size, row_bytes, colors, resolve_threads(threads), target);
    return out;
}

PixelScaling make_scaling(std::vector<float> mean, std::vector<float> std, bool swap_rgb, std::vector<float> pad_value,
                          const std::string& sample) {
    if (mean.empty() || mean.size() > kMaxBands || std.size() != mean.size() || pad_value.size() != mean.size() ||
        (swap_rgb && mean.size() != 3)) {
        throw py::value_error("mean, std and pad_value have one value a channel; only three channels can be swapped");
    }
    return {std::move(mean), std::move(std), swap_rgb, std::move(pad_value), parse_sample(sample)};
}

BandColors make_colors(int channels, const std::string& sample, std::array<int, 3> band, std::array<float, 3> low,
                       std::array<float, 3> factor) {
    if (channels < 1 || channels > kMaxBands || *std::max_element(band.begin(), band.end()) >= channels) {
        throw py::value_error("colours are of bands that there are");
    }
    return {{channels, parse_sample(sample)}, band, low, factor};
}

template <typename Label>
py::array_t<std::uint8_t> overlay_labels(const ByteArray& image, const py::array_t<Label, py::array::c_style>& labels,
                                         const ByteArray& palette, float alpha, int threads) {
    if (image.ndim() != 3 || image.shape(2) != 3 || labels.ndim() != 2 || labels.shape(0) != image.shape(0) ||
        labels.shape(1) != image.shape(1)) {
        throw py::value_error("the image must be [H, W, 3] uint8 and the labels [H, W] uint8 or uint16");
    }
    const int colors = sizeof(Label) == 1 ? 256 : kMaxLabels;
    if (palette.ndim() != 2 || palette.shape(0) != colors || palette.shape(1) != 3) {
        throw py::value_error("the palette must be [256, 3] uint8, or [65536, 3] for labels of 16 bits");
    }
    if (!(alpha >= 0.0f && alpha <= 1.0f)) throw py::value_error("alpha must lie in [0, 1]");
    py::array_t<std::uint8_t> out({image.shape(0), image.shape(1), image.shape(2)});
    const std::uint8_t* pixels = image.data();
    const Drawing<Label> drawing{labels.data(), palette.data(), colors, alpha};
    std::uint8_t* target = out.mutable_data();
    const auto count = static_cast<std::int64_t>(labels.size());
    const py::gil_scoped_release released;
    overlay(pixels, drawing, count, resolve_threads(threads), target);
    return out;
}

}  // namespace

void bind_runtime(py::module_& module) {
    bind_geometry(module);
    bind_frame_plan(module);
    module.def("upsample_labels", &upsample_labels, py::arg("logits"), py::arg("geometry"), py::arg("align_corners"),
               py::arg("threads") = 0);
    module.def("upsample_logits", &upsample_maps<resample_logits>, py::arg("logits"), py::arg("geometry"),
               py::arg("align_corners"), py::arg("threads") = 0);
    module.def("upsample_probabilities", &upsample_maps<resample_probabilities>, py::arg("logits"), py::arg("geometry"),
               py::arg("align_corners"), py::arg("threads") = 0);
    module.attr("KERNEL_CONSTANTS")["kRun"] = kRun;
    module.attr("KERNEL_CONSTANTS")["kWeightBits"] = kWeightBits;
    py::class_<Resampling>(module, "Resampling")
        .def(py::init(&make_resampling), py::arg("length"), py::arg("out_length"))
        .def_property_readonly("first", &first_of)
        .def_property_readonly("weights", &weights_of);
    py::class_<PixelScaling>(module, "PixelScaling")
        .def(py::init(&make_scaling), py::arg("mean"), py::arg("std"), py::arg("swap_rgb"), py::arg("pad_value"),
             py::arg("sample") = "uint8");
    py::class_<BandColors>(module, "BandColors")
        .def(py::init(&make_colors), py::arg("channels"), py::arg("sample"), py::arg("band"), py::arg("low"),
             py::arg("factor"));
    module.def("color_bands", &color, py::arg("image"), py::arg("colors"), py::arg("threads") = 0);
    module.def("normalize_image", &normalize, py::arg("image"), py::arg("scaling"), py::arg("out_size"),
               py::arg("origin") = std::pair(0, 0), py::arg("threads") = 0);
    module.def("overlay", &overlay_labels<std::uint8_t>, py::arg("image"), py::arg("labels").noconvert(),
               py::arg("palette"), py::arg("alpha"), py::arg("threads") = 0);
    module.def("overlay", &overlay_labels<std::uint16_t>, py::arg("image"), py::arg("labels").noconvert(),
               py::arg("palette"), py::arg("alpha"), py::arg("threads") = 0);
}

}  // namespace atrous
