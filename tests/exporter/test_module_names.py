"""Paths of PyTorch modules in graphs, and that what rewrites a graph keeps them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_networks import TinyDeepLab
from torch import nn

import atrous
from atrous.bundle import Bundle
from atrous.exporter.exported_program import load_exported_program
from atrous.exporter.module_names import module_names
from atrous.exporter.onnx_export import StandaloneHead, export_graph
from atrous.exporter.outputs import OneOutput
from atrous.exporter.passes import ATROUS_PASSES, ConvertToHalf, run_passes
from atrous.manifest import SizePolicy

FIXED = SizePolicy((32, 48), (32, 48), (32, 48), multiple=4)
#: Convolutions of the tiny network, whose batch normalizations are folded into them.
CONVS = {"stem.0.0", "stem.1.0", "context.0.0", "context.1.0", "classifier"}


def modules_of_convs(model: onnx.ModelProto) -> set[str | None]:
    modules = module_names(model)
    return {modules.get(node.name) for node in model.graph.node if node.op_type == "Conv"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("named") / "model.onnx"
    export_graph(TinyDeepLab().eval(), path, FIXED)
    return onnx.load(path)


def test_convolutions_have_the_path_of_their_weights(graph: onnx.ModelProto) -> None:
    assert modules_of_convs(graph) == CONVS
    named = {module_names(graph).get(node.name) for node in graph.graph.node if node.op_type == "Relu"}
    assert named == {"stem.0.2", "stem.1.2", "context.0.2", "context.1.2"}


@pytest.mark.slow
def test_wrappers_are_not_in_the_path(tmp_path: Path) -> None:
    class Dict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = TinyDeepLab()

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.network(image)}

    for number, wrapped in enumerate(
        (OneOutput(Dict(), "out"), StandaloneHead(OneOutput(Dict(), "out"), "labels", align_corners=False))
    ):
        export_graph(wrapped.eval(), tmp_path / f"{number}.onnx", FIXED)
        assert modules_of_convs(onnx.load(tmp_path / f"{number}.onnx")) == {f"network.{name}" for name in CONVS}


@pytest.mark.slow
def test_a_program_keeps_them(tmp_path: Path) -> None:
    program = torch.export.export(TinyDeepLab().eval(), (torch.zeros(1, 3, 32, 48),))
    torch.export.save(program, tmp_path / "model.pt2")
    export_graph(load_exported_program(tmp_path / "model.pt2"), tmp_path / "model.onnx", FIXED)
    assert modules_of_convs(onnx.load(tmp_path / "model.onnx")) == CONVS


@pytest.mark.parametrize("form", ATROUS_PASSES)
def test_passes_keep_them(graph: onnx.ModelProto, form: str) -> None:
    rewritten = run_passes(graph, [ATROUS_PASSES[form](), ConvertToHalf()])
    assert modules_of_convs(rewritten) == CONVS


@pytest.mark.slow
def test_reports_patterns_and_quantized_graphs_use_them(
    dynamic_bundle: Bundle, rng: np.random.Generator, tmp_path: Path
) -> None:
    bundle = Bundle.open(shutil.copytree(dynamic_bundle.path, tmp_path / "street.atrous"))
    photos = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(2)]
    quantized, report = atrous.quantize(bundle, images=photos, keep=["context.0.*"])
    kept = {layer.module: layer.reason for layer in report.layers if layer.reason}
    assert kept["context.0.0"] == "requested by 'context.0.*'"
    assert {layer.module for layer in report.layers} == CONVS
    (artifact,) = (each for each in quantized.manifest.artifacts if each.precision == "int8")
    assert modules_of_convs(onnx.load_from_string(quantized.read(artifact))) == CONVS
    text = (quantized.path / "reports" / "int8.txt").read_text(encoding="utf-8")
    assert "  context.0.0 (node_" in text
    assert "context.1.0 (node_" in (quantized.path / "reports" / "int8.html").read_text(encoding="utf-8")
    _, fp16 = atrous.add_fp16(quantized, keep=["classifier"])
    assert [(node.op, node.module) for node in fp16.kept] == [("Conv", "classifier")]
