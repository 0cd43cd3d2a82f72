"""The C++ runtime gives the labels and probabilities that the Python runtime gives."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from cpp_library import CppError, Library
from int8_graphs import ASPP, observed, replace_constant
from tiny_graphs import color_layers, lesion_layers, local_layers, make_bundle, put_logits_on_pixels
from tolerances import CPP_AGREEMENT, CPP_PROBABILITY_ABS

import atrous
from atrous.bundle import Bundle, extend_bundle
from atrous.calibration.plan import plan_quantization
from atrous.calibration.qdq import halve_rest, quantize_graph
from atrous.crf import CRFParams, DenseCRF
from atrous.exporter.normalization import Normalization
from atrous.exporter.pack import pack
from atrous.exporter.sizes import DynamicSize
from atrous.manifest import SOFTMAX, CrfFit
from atrous.runtime.preprocess import prepare_image

#: Channels that differ in every constant, so that a swap shows.
UNEVEN = Normalization(color_order="BGR", mean=(0.1, 0.4, 0.6), std=(0.2, 0.3, 0.5), scale=1 / 255)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random pictures with some structure larger than a cell."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (-(-height // 9), -(-width // 9), 3), dtype=np.uint8)
    rows = np.repeat(np.repeat(coarse, 9, axis=0), 9, axis=1)[:height, :width]
    return rows + rng.integers(0, 56, (height, width, 3), dtype=np.uint8)


def int8_of(bundle: Bundle, picture: np.ndarray) -> onnx.ModelProto:
    """The bundle's first graph in INT8, calibrated on one picture of a size that it takes."""
    graph = onnx.load(bundle.path / bundle.manifest.artifacts[0].file)
    image = prepare_image(picture, picture.shape[:2], bundle.manifest.input)[None]
    return quantize_graph(graph, plan_quantization(graph), observed(graph, image))


def add_int8(bundle: Bundle, graph: onnx.ModelProto) -> None:
    with extend_bundle(bundle) as staged:
        onnx.save(graph, staged.path / "model.int8.onnx")
        artifact = staged.artifact("model.int8.onnx", kind="onnx", precision="int8", provenance={})
        staged.write_manifest(bundle.manifest.with_artifact(artifact))


def assert_same(
    library: Library, path: Path, picture: np.ndarray, *, crf: bool = False, precision: str = "auto"
) -> None:
    expected = atrous.load(path, backend="openvino", precision=precision, crf=crf)(picture)
    with library.segmenter(path, precision=precision.encode(), crf=int(crf)) as segment:
        actual = segment(picture, probabilities=True)
        labels_only = segment(picture)
    assert (actual.labels == expected.labels).mean() >= CPP_AGREEMENT
    assert abs(actual.probabilities - expected.probabilities).max() <= CPP_PROBABILITY_ABS
    assert (labels_only.labels == actual.labels).all()


def test_fractions_of_the_crf(library, demo_bundle, photo):
    expected = atrous.load(demo_bundle, backend="openvino", crf=DenseCRF(storage="unorm16"))(photo)
    with library.segmenter(demo_bundle, crf=1, crf_storage=b"unorm16") as segment:
        actual = segment(photo, probabilities=True)
    assert (actual.labels == expected.labels).mean() >= CPP_AGREEMENT
    assert abs(actual.probabilities - expected.probabilities).max() <= CPP_PROBABILITY_ABS


def test_a_fitted_crf(library, demo_bundle, photo, tmp_path):
    """Parameters, temperature and iterations of the bundle, and where they are from."""
    fitted = {**CRFParams.deeplab_v2_resnet().to_dict(), "unary_temperature": 2.5, "iterations": 3}
    fit = CrfFit("miou", 75, 25, "0" * 64, "1" * 64, 0, 0.5, 0.5, 0.51, 0.52, (0.0, 0.1))
    path = shutil.copytree(demo_bundle, tmp_path / "fitted.atrous")
    manifest = dataclasses.replace(Bundle.open(path).manifest, crf=fitted, crf_fit=fit)
    (path / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    expected = atrous.load(path, backend="openvino", crf=True)(photo)
    with library.segmenter(path, crf=1) as segment:
        actual = segment(photo, probabilities=True)
    assert (actual.labels == expected.labels).mean() >= CPP_AGREEMENT
    assert abs(actual.probabilities - expected.probabilities).max() <= CPP_PROBABILITY_ABS
    borrowed = atrous.load(path, backend="openvino", crf=CRFParams.deeplab_v2_resnet())(photo)
    assert (actual.labels != borrowed.labels).mean() > 0.001


def test_class_floor_of_the_crf(library, demo_bundle, photo):
    """In this part of the photo four of the eleven classes are unlikely, and eight fit into a row."""
    part = np.ascontiguousarray(photo[264:392, 456:584])
    crf = DenseCRF(class_floor=0.01)
    expected = atrous.load(demo_bundle, backend="openvino", crf=crf)(part)
    assert len(crf.classes_refined) == 8
    with library.segmenter(demo_bundle, crf=1, crf_class_floor=0.01) as segment:
        actual = segment(part, probabilities=True)
    assert (actual.labels == expected.labels).mean() >= CPP_AGREEMENT
    assert abs(actual.probabilities - expected.probabilities).max() <= CPP_PROBABILITY_ABS
    left_out = (expected.probabilities == np.float32(1e-5)).all(axis=(1, 2))
    assert left_out.sum() == 3
    assert (actual.probabilities[left_out] == np.float32(1e-5)).all()


@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
def test_demo_bundle(library, demo_bundle, photo, crf):
    assert_same(library, demo_bundle, photo, crf=crf)


def test_demo_bundle_against_onnx_runtime(library, demo_bundle, photo):
    expected = atrous.load(demo_bundle, backend="onnxruntime")(photo).labels
    with library.segmenter(demo_bundle) as segment:
        assert (segment(photo).labels == expected).mean() >= CPP_AGREEMENT


# Without the fusion of Q/DQ, which OpenVINO computes wrong behind a Concat, 1.2 % of these labels differ.
@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_demo_bundle_in_int8(library, demo_bundle, photo, tmp_path, rest):
    path = shutil.copytree(demo_bundle, tmp_path / "demo.atrous")
    picture = np.ascontiguousarray(photo[:368, :480])
    graph = int8_of(Bundle.open(path), picture)
    add_int8(Bundle.open(path), halve_rest(graph)[0] if rest == "fp16" else graph)
    assert_same(library, path, picture, precision="int8")


# And 12 % of these.
@pytest.mark.parametrize("zero_point", [0, 3, None])
@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_int8_behind_a_concat(library, tmp_path, rest, zero_point):
    onnx.save(ASPP, tmp_path / "aspp.onnx")
    sizes = DynamicSize((16, 16), (48, 64), (128, 128), multiple=8)
    bundle = pack(tmp_path / "aspp.onnx", tmp_path / "aspp.atrous", classes=["a", "b", "c", "d"], size=sizes)
    picture = noise(48, 64)
    graph = int8_of(bundle, picture)
    if zero_point is None:  # which is 0 as well, but another form
        for node in graph.graph.node:
            if node.op_type == "DequantizeLinear":
                del node.input[2:]
    else:
        replace_constant(graph, "int8_zero_point", np.array(zero_point, np.int8))
    add_int8(bundle, halve_rest(graph)[0] if rest == "fp16" else graph)
    assert_same(library, bundle.path, picture, precision="int8")


# Smaller than the least input, padded, exact, one pixel, tiled along one axis and along both.
@pytest.mark.parametrize("size", [(20, 25), (33, 70), (64, 96), (1, 1), (40, 300), (261, 203)])
@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
def test_sizes(library, tiny_bundle, size, crf):
    assert_same(library, tiny_bundle.path, noise(*size), crf=crf)


@pytest.mark.parametrize("size", [(40, 41), (97, 161), (200, 150)])
def test_logits_on_pixels(library, tmp_path, size):
    sizes = DynamicSize((32, 32), (64, 96), (128, 128), multiple=8)
    bundle = make_bundle(tmp_path / "b.atrous", local_layers(4), sizes=sizes, align_corners=True)
    assert_same(library, put_logits_on_pixels(bundle).path, noise(*size))


# Larger and smaller along each axis; shrinking both, where the order of the two passes shows.
@pytest.mark.parametrize("size", [(64, 96), (64, 50), (31, 96), (150, 131), (131, 150), (7, 5), (1, 1000), (300, 2)])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "none"])
def test_fixed_size(library, tmp_path, size, resize):
    path = tmp_path / "b.atrous"
    make_bundle(path, local_layers(3), fixed=(64, 96), normalization=UNEVEN, resize=resize)
    assert_same(library, path, noise(*size))


@pytest.mark.parametrize("align_corners", [False, True], ids=["cells", "pixels"])
@pytest.mark.parametrize("size", [(97, 61), (40, 161)])
def test_letterbox_in_a_range_of_sizes(library, tmp_path, size, align_corners):
    """The best size of a range is what images are fitted to, with the CRF too."""
    sizes = DynamicSize((32, 32), (56, 80), (128, 128), multiple=8)
    bundle = make_bundle(
        tmp_path / "b.atrous", color_layers(8), sizes=sizes, align_corners=align_corners, resize="letterbox"
    )
    path = (put_logits_on_pixels(bundle) if align_corners else bundle).path
    assert_same(library, path, noise(*size))
    assert_same(library, path, noise(*size), crf=True)


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
def test_bgr_and_pitch(library, tmp_path, color_order, crf):
    path = tmp_path / "b.atrous"
    normalization = dataclasses.replace(UNEVEN, color_order=color_order)
    make_bundle(path, color_layers(8), sizes=DynamicSize((16, 16), (64, 64), (64, 64), 8), normalization=normalization)
    picture = noise(40, 80)  # padded, so that the padding is swapped too, and tiled
    with library.segmenter(path, crf=int(crf)) as segment:
        expected = segment(picture, probabilities=True)
        wide = np.full((40, 101, 3), 77, np.uint8)
        wide[:, 5:85] = picture
        swapped = np.ascontiguousarray(picture[:, :, ::-1])
        others = [segment(wide[:, 5:85], probabilities=True), segment(swapped, bgr=True, probabilities=True)]
    for other in others:
        assert (other.labels == expected.labels).all()
        assert (other.probabilities == expected.probabilities).all()
    assert_same(library, path, picture, crf=crf)


@pytest.mark.parametrize("crf", [0, 1])
def test_pitch_of_labels(library, color_bundle, crf):
    picture = noise(24, 40)
    room = np.full((24, 53), 99, np.uint8)
    with library.segmenter(color_bundle.path, crf=crf) as segment:
        frame, _ = segment.frame(picture)
        frame.labels, frame.label_row_bytes = room.ctypes.data, 53
        library.check(library.c.atrous_run(segment.handle, ctypes.byref(frame), None))
        assert (room[:, :40] == segment(picture).labels).all()
    assert (room[:, 40:] == 99).all()


@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("size", [(61, 83), (150, 90)], ids=["whole", "tiles"])
@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
def test_one_channel_under_a_sigmoid(library, tmp_path, threshold, size, crf):
    sizes = DynamicSize((16, 16), (64, 64), (96, 96), multiple=8)
    bundle = make_bundle(tmp_path / "lesions.atrous", lesion_layers(4), sizes=sizes, threshold=threshold)
    picture = noise(*size)
    assert set(np.unique(atrous.load(bundle)(picture).labels)) == {0, 1}
    assert_same(library, bundle.path, picture, crf=crf)


def test_a_softmax_over_one_class_is_refused(library, tmp_path):
    bundle = make_bundle(tmp_path / "lesions.atrous", lesion_layers(4), fixed=(64, 64))
    manifest = bundle.manifest
    output = dataclasses.replace(manifest.output, channels=SOFTMAX)
    old = dataclasses.replace(manifest, schema_version="1.0", classes=manifest.classes[:1], output=output)
    (bundle.path / "manifest.json").write_text(old.to_json())
    with pytest.raises(CppError, match="every label would be 0"), library.segmenter(bundle.path):
        pass
