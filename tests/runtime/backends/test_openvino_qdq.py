"""INT8 graphs in OpenVINO: the same numbers as ONNX Runtime's, also behind a `Concat`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import needs
import numpy as np
import onnx
import pytest
from int8_graphs import ASPP, GRAPHS, observed, run
from numpy.typing import NDArray
from tolerances import BACKEND_ABSOLUTE, INT8_REST_RELATIVE

from atrous.bundle import Bundle, stage_bundle
from atrous.calibration.plan import plan_quantization
from atrous.calibration.qdq import halve_rest, quantize_graph
from atrous.runtime.backends import open_backend
from atrous.runtime.backends.openvino import exact_int8
from atrous.runtime.backends.openvino_qdq import fuse_qdq

ov = needs.OPENVINO.load("openvino")


@pytest.fixture
def image(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal((1, 3, 16, 16)).astype(np.float32)


def int8_of(graph: onnx.ModelProto, image: NDArray[np.float32]) -> onnx.ModelProto:
    return quantize_graph(graph, plan_quantization(graph), observed(graph, image))


def read(graph: onnx.ModelProto) -> Any:
    return ov.Core().read_model(graph.SerializeToString())


def compute(model: Any, image: NDArray[np.float32]) -> NDArray[np.float32]:
    model.reshape(list(image.shape))
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **exact_int8()})
    return compiled([image])[0]


@pytest.mark.parametrize("name", GRAPHS)
def test_computes_what_onnx_says(name: str, image: NDArray[np.float32]) -> None:
    int8 = int8_of(GRAPHS[name], image)
    half, _ = halve_rest(int8)
    expected = run(int8, image)
    for graph, tolerance in ((int8, BACKEND_ABSOLUTE), (half, INT8_REST_RELATIVE)):
        model = read(graph)
        assert fuse_qdq(ov, model) == len(plan_quantization(GRAPHS[name]).tensors)
        assert np.abs(compute(model, image) - expected).max() <= tolerance * np.abs(expected).max()


def test_zero_points_of_other_tools(image: NDArray[np.float32]) -> None:
    text = """g (float[1, 3, 16, 16] image) => (float[1, 3, 16, 16] logits)
        <float s = {0.03125}, uint8 z = {100}, float[3] t = {0.5, 2, 0.25},
         int8[3, 3, 1, 1] w = {1, 2, 3, 4, -5, 6, 7, 8, 9}> {
        q = QuantizeLinear (image, s, z)  d = DequantizeLinear (q, s, z)
        v = DequantizeLinear <axis = 0> (w, t)  logits = Conv (d, v)
    }"""
    graph = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    model = read(graph)
    assert fuse_qdq(ov, model) == 1
    expected = run(graph, image)
    assert np.abs(compute(model, image) - expected).max() <= BACKEND_ABSOLUTE * np.abs(expected).max()


def test_leaves_other_graphs_alone() -> None:
    assert fuse_qdq(ov, read(ASPP)) == 0


def test_the_backend_uses_it(tiny_bundle: Bundle, image: NDArray[np.float32], tmp_path: Path) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(int8_of(ASPP, image))
    with stage_bundle(tmp_path / "int8.atrous") as staged:
        onnx.save(graph, staged.path / "model.int8.onnx")
        artifact = staged.artifact("model.int8.onnx", kind="onnx", precision="int8", provenance={})
        classes = tiny_bundle.manifest.classes[:4]
        staged.write_manifest(dataclasses.replace(tiny_bundle.manifest, classes=classes, artifacts=(artifact,)))
    backend = open_backend(Bundle.open(tmp_path / "int8.atrous"), backend="openvino", precision="int8")
    expected = run(graph, image)
    assert np.abs(backend.infer(image) - expected).max() <= BACKEND_ABSOLUTE * np.abs(expected).max()
