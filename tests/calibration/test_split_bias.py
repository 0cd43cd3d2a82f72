from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_graphs import build
from int8_graphs import constant, graph_of, nodes, observed, run
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tiny_networks import TinyDeepLab
from tolerances import INT8_OPTIMIZED_RELATIVE, SPLIT_BIAS_RELATIVE
from torch import nn

from atrous.calibration.plan import plan_quantization
from atrous.calibration.qdq import halve_rest, quantize_graph
from atrous.calibration.split_bias import SplitBias
from atrous.exporter.onnx_export import export_graph
from atrous.exporter.passes import run_passes
from atrous.exporter.trained_model import load_trained
from atrous.manifest import SizePolicy
from atrous.runtime.backends.onnxruntime import OnnxSession

CHECKPOINT = Path(__file__).parents[2] / "examples" / "train_camvid" / "deeplab.safetensors"
ONE_SIZE = SizePolicy((64, 96), (64, 96), (64, 96), 16)


def biased(body: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    return graph_of(f"a = Conv<kernel_shape=[1, 1]>(image, w0) {body}", w0=(4, 3, 1, 1), **weights)


@pytest.fixture
def image(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal((1, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "weight"),
    [
        ("Conv<kernel_shape=[1, 1]>(a, w1, b1) logits = Relu(x)", (5, 4, 1, 1)),
        ("ConvTranspose<kernel_shape=[2, 2]>(a, w1, b1) logits = Relu(x)", (4, 5, 2, 2)),
        ("Conv<kernel_shape=[1, 1]>(a, w1, b1) logits = Identity(x)", (5, 4, 1, 1)),
    ],
)
def test_the_sum_is_the_same(layer: str, weight: tuple[int, ...], image: NDArray[np.float32]) -> None:
    graph = biased(f"x = {layer}", w1=weight, b1=(5,))
    split = run_passes(graph, [SplitBias({"x"})])
    assert len(nodes(split)["x/without_bias"].input) == 2
    assert list(nodes(split)["x/add_bias"].output) == ["x"]
    assert constant(split, "x/bias").shape == (5, 1, 1)
    assert "b1" not in {tensor.name for tensor in split.graph.initializer}
    expected, actual = run(graph, image), run(split, image)
    assert np.abs(actual - expected).max() <= SPLIT_BIAS_RELATIVE * np.abs(expected).max()


def test_gemm_counts_beta(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4)).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Gemm", ["image", "w", "b"], ["logits"], name="x", beta=0.5, transB=1)],
            "gemm",
            [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [2, 4])],
            [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [2, 3])],
            [
                numpy_helper.from_array(rng.standard_normal((3, 4)).astype(np.float32), "w"),
                numpy_helper.from_array(rng.standard_normal(3).astype(np.float32), "b"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    split = run_passes(model, [SplitBias({"x"})])
    assert [node.op_type for node in split.graph.node] == ["Gemm", "Add"]
    np.testing.assert_allclose(run(split, x), run(model, x), rtol=1e-6)


def test_others_stay() -> None:
    graph = biased("x = Conv<kernel_shape=[1, 1]>(a, w1, b1) logits = Relu(x)", w1=(5, 4, 1, 1), b1=(5,))
    assert run_passes(graph, [SplitBias({"a", "y"})]) == run_passes(graph, [])


def test_a_bias_that_two_layers_share(image: NDArray[np.float32]) -> None:
    layers = "x = Conv<kernel_shape=[1, 1]>(a, w1, b1) y = Conv<kernel_shape=[1, 1]>(a, w2, b1)"
    body = f"{layers} logits = Concat<axis=1>(x, y)"
    graph = biased(body, w1=(5, 4, 1, 1), w2=(5, 4, 1, 1), b1=(5,))
    split = run_passes(graph, [SplitBias({"x"})])
    assert "b1" in {tensor.name for tensor in split.graph.initializer}
    expected = run(graph, image)
    assert np.abs(run(split, image) - expected).max() <= SPLIT_BIAS_RELATIVE * np.abs(expected).max()


def int8_of(model: nn.Module, path: Path, sizes: SizePolicy) -> onnx.ModelProto:
    """INT8 with the rest in FP16, as `quantize` writes it."""
    export_graph(model.eval(), path, sizes)
    graph = run_passes(path, [])
    plan = plan_quantization(graph)
    image = np.random.default_rng(0).standard_normal((1, 3, *sizes.opt)).astype(np.float32)
    return halve_rest(quantize_graph(graph, plan, observed(graph, image)))[0]


@pytest.mark.slow
def test_onnx_runtime_computes_what_is_written(tmp_path: Path, rng: np.random.Generator) -> None:
    int8 = int8_of(load_trained(CHECKPOINT).model, tmp_path / "trained.onnx", ONE_SIZE)
    image = rng.standard_normal((1, 3, *ONE_SIZE.opt)).astype(np.float32)
    written, optimized = (
        OnnxSession(int8.SerializeToString(), name="int8", optimize=each).run(image) for each in (False, True)
    )
    assert np.abs(optimized - written).max() <= INT8_OPTIMIZED_RELATIVE * np.abs(written).max()


def test_tensorrt_rtx_builds_int8(tmp_path: Path) -> None:
    sizes = SizePolicy((16, 16), (32, 48), (64, 64), 8)
    plan = build(int8_of(TinyDeepLab(), tmp_path / "tiny.onnx", sizes), sizes)
    assert plan.report.summary()["reading"]["Int8"] >= 3
