"""Graphs that other tools have quantized, in training or after it: packed and built as they are."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import needs
import numpy as np
import onnx
import pytest
import torch
from tiny_networks import TinyDeepLab
from torch import Tensor, nn
from torch.nn import functional

import atrous
from atrous.bundle import Bundle
from atrous.exporter.engine.build import build_engine
from atrous.exporter.pack import pack
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.verify.bundle import verify_bundle

CLASSES = ("sky", "road", "car", "tree", "person")
SIZES = DynamicSize((16, 16), (32, 48), (64, 64), multiple=8)
CONVOLUTIONS = 5


class FakeQuantized(nn.Module):
    """A convolution as quantization-aware training leaves it: input and weights through torch's fake quantization."""

    def __init__(self, conv: nn.Conv2d, amax: float) -> None:
        super().__init__()
        self.conv = conv
        self.step = amax / 127
        self.register_buffer("steps", conv.weight.detach().abs().amax((1, 2, 3)) / 127)
        self.register_buffer("zeros", torch.zeros(len(conv.weight), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        x = torch.fake_quantize_per_tensor_affine(x, self.step, 0, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(conv.weight, self.steps, self.zeros, 0, -128, 127)
        return functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation)


class Annotated(FakeQuantized):
    """The same with ONNX's own operators in its forward, which torch's current exporter takes."""

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        x = _pair(x, torch.tensor(self.step), torch.zeros((), dtype=torch.int8), {})
        weight = _pair(conv.weight, self.steps, self.zeros.to(torch.int8), {"axis": 0})
        return functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation)


def _pair(x: Tensor, scale: Tensor, zero: Tensor, attributes: dict[str, int]) -> Tensor:
    codes = torch.onnx.ops.symbolic(
        "QuantizeLinear", (x, scale, zero), attributes, dtype=torch.int8, shape=x.shape, version=18
    )
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", (codes, scale, zero), attributes, dtype=torch.float32, shape=x.shape, version=18
    )


def quantized(module: nn.Module, form: type[FakeQuantized]) -> nn.Module:
    """The module with all its convolutions in that form."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, form(child, amax=4.0))
        else:
            quantized(child, form)
    return module.eval()


def by_torchscript(path: Path) -> None:
    """As the tools of the TensorRT world do it."""
    axes = {"image": {0: "N", 2: "H", 3: "W"}, "logits": {0: "N", 2: "h", 3: "w"}}
    network = quantized(TinyDeepLab(), FakeQuantized)
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 32, 48),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=18,
        dynamo=False,
    )


def by_torch_export(path: Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        quantized(TinyDeepLab(), Annotated),
        (torch.zeros(2, 3, 32, 48),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
        external_data=False,
        verbose=False,
        dynamo=True,
    )


@pytest.fixture(scope="module", params=[by_torchscript, by_torch_export])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qat") / "qat.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporters warn of themselves
        request.param(path)
    return path


@pytest.fixture(scope="module")
def bundle(graph: Path) -> Bundle:
    """Read-only."""
    return pack(graph, graph.with_name("qat.atrous"), classes=CLASSES, size=SIZES)


def test_is_int8_and_the_same_file(bundle: Bundle, graph: Path) -> None:
    (artifact,) = bundle.manifest.artifacts
    assert (artifact.precision, artifact.file) == ("int8", "model.int8.onnx")
    assert bundle.path_of(artifact).read_bytes() == graph.read_bytes()
    ops = [node.op_type for node in onnx.load(graph).graph.node]
    assert ops.count("QuantizeLinear") >= CONVOLUTIONS


def test_runs_in_every_backend(bundle: Bundle) -> None:
    for check in verify_bundle(bundle).checks:
        assert check.passed, check
    assert atrous.load(bundle.path)(np.zeros((40, 40, 3), np.uint8)).labels.shape == (40, 40)


def test_builds_with_tensorrt_rtx(bundle: Bundle, tmp_path: Path) -> None:
    needs.TENSORRT_RTX.load("tensorrt_rtx")
    copy = Bundle.open(shutil.copytree(bundle.path, tmp_path / "qat.atrous"))
    _, engines = build_engine(copy, precision="int8", sm=["89", "120"])
    assert [engine.precision for engine in engines] == ["int8", "int8"]
    for engine in engines:
        assert engine.provenance["reading"]["Int8"] >= CONVOLUTIONS
