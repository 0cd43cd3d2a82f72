"""INT8 graphs in what runs them: TensorRT-RTX builds every planned layer as INT8, for GPUs that are not here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_graphs import build
from int8_graphs import ASPP, GRAPHS, RESIDUAL, constant, observed, replace_constant, run
from numpy.typing import NDArray
from tiny_networks import TinyDeepLab

from atrous.calibration.plan import plan_quantization
from atrous.calibration.qdq import halve_rest, quantize_graph, wide_layers
from atrous.exporter.models.multiscale import MultiScale
from atrous.exporter.onnx_export import export_graph
from atrous.exporter.passes import DeinterlaceAtrousConv, run_passes
from atrous.manifest import SizePolicy

ONE_SIZE = SizePolicy((16, 16), (16, 16), (16, 16), 1)
SIZES = SizePolicy((16, 16), (32, 48), (64, 64), 16)
CAPABILITIES = ((8, 9), (12, 0))


@pytest.fixture
def image(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal((1, 3, 32, 48)).astype(np.float32)


def int8_of(graph: onnx.ModelProto, image: NDArray[np.float32]) -> onnx.ModelProto:
    return quantize_graph(graph, plan_quantization(graph), observed(graph, image))


def require_int8(graph: onnx.ModelProto, sizes: SizePolicy, layers: int, *, batch: int = 1) -> None:
    """Build the graph for every GPU, and find as many INT8 layers as planned or more."""
    for sm in CAPABILITIES:
        summary = build(graph, sizes, batch=batch, sm=sm).report.summary()
        assert summary["reading"].get("Int8", 0) >= layers


class TestTensorRtRtx:
    @pytest.mark.parametrize("name", GRAPHS)
    def test_builds_what_is_planned(self, name: str, rng: np.random.Generator) -> None:
        graph = GRAPHS[name]
        int8 = int8_of(graph, rng.standard_normal((1, 3, 16, 16)).astype(np.float32))
        layers = len(plan_quantization(graph).layers)
        sizes = SIZES if name == "aspp" else ONE_SIZE
        require_int8(halve_rest(int8)[0], sizes, layers)

    def test_with_the_rest_in_fp32(self, rng: np.random.Generator) -> None:
        require_int8(int8_of(RESIDUAL, rng.standard_normal((1, 3, 16, 16)).astype(np.float32)), ONE_SIZE, 2)

    def test_weights_too_small_for_fp16_scales(self, image: NDArray[np.float32]) -> None:
        graph = onnx.ModelProto()
        graph.CopyFrom(ASPP)
        first = plan_quantization(graph).layers[0]
        replace_constant(graph, first.weight, constant(graph, first.weight) * np.float32(1e-4))
        plan, ranges = plan_quantization(graph), observed(graph, image)
        wide = wide_layers(plan, ranges)
        assert {layer.name for layer in plan.layers if layer.source == first.source} <= wide.keys()
        require_int8(halve_rest(quantize_graph(graph, plan, ranges), wide)[0], SIZES, len(plan.layers))

    def test_deinterlaced(self, image: NDArray[np.float32]) -> None:
        int8 = int8_of(run_passes(ASPP, [DeinterlaceAtrousConv()]), image)
        require_int8(halve_rest(int8)[0], SIZES, 4)

    @pytest.mark.slow
    def test_an_exported_network_at_three_scales(self, tmp_path: Path, image: NDArray[np.float32]) -> None:
        path = tmp_path / "network.onnx"
        export_graph(MultiScale(TinyDeepLab()).eval(), path, SIZES)
        graph = run_passes(path, [])
        int8 = int8_of(graph, image)
        names = [tensor.name for tensor in int8.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
        layers = plan_quantization(graph).layers
        assert len(layers) == 9  # three at each of three scales: the first and the classifier are not
        assert sum(name.endswith("/int8") for name in names) == 3
        half, kept = halve_rest(int8)
        assert kept == ()
        assert run(half, image).shape == run(graph, image).shape
        require_int8(half, SIZES, len(layers), batch=2)
