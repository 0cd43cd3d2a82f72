"""Operator sets: what is written is what was asked for, and is held to the network like every export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_networks import TinyDeepLab
from tolerances import EXPORT_RELATIVE
from torch import Tensor, nn
from torch.nn import functional

from atrous.errors import ExportError
from atrous.exporter.export import export
from atrous.exporter.module_names import module_names
from atrous.exporter.opset import MIN_OPSET, torch_opset, with_opset
from atrous.exporter.options import ExportOptions
from atrous.exporter.sizes import DynamicSize
from atrous.runtime.backends import open_reference

CLASSES = ("sky", "road", "car", "tree", "person")


class Pooled(nn.Module):
    """Image pooling, a split and a resize, whose operators changed with opset 18."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyDeepLab()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 10, 1))

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network(image)
        pooled = functional.interpolate(self.pool(image), size=logits.shape[2:], mode="bilinear")
        left, right = pooled.split(5, dim=1)
        return logits + left * right


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 22])
def test_a_graph_of_another_opset(tmp_path: Path, opset: int) -> None:
    network, options = Pooled().eval(), ExportOptions(opset=opset)
    size = DynamicSize((24, 24), (32, 48), (48, 64))
    bundle = export(network, tmp_path / "street.atrous", classes=CLASSES, size=size, options=options)
    (artifact,) = bundle.manifest.artifacts
    model = onnx.load(bundle.path / artifact.file)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [opset]
    assert model.ir_version == {17: 8, 22: 10}[opset]
    assert artifact.provenance["opset"] == opset
    assert "network.classifier" in module_names(model).values()
    image = torch.randn(1, 3, 33, 57, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(image).numpy()
    assert np.abs(open_reference(bundle).infer(image.numpy()) - expected).max() <= EXPORT_RELATIVE * expected.max()


@pytest.mark.parametrize("opset", [0, 16, 99])
def test_opsets_that_cannot_be_written(opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} cannot be written; expected {MIN_OPSET} to "):
        torch_opset(opset)


def test_an_operator_that_an_older_opset_lacks() -> None:
    """GroupNormalization came with opset 18."""
    float32 = onnx.TensorProto.FLOAT
    values = {"x": [1, 4, 2, 2], "scale": [2], "bias": [2]}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("GroupNormalization", list(values), ["y"], name="norm", num_groups=2)],
        "graph",
        [onnx.helper.make_tensor_value_info(name, float32, shape) for name, shape in values.items()],
        [onnx.helper.make_tensor_value_info("y", float32, [1, 4, 2, 2])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    with pytest.raises(
        ExportError,
        match=r"(?s)the graph has no form in opset 17: .*GroupNormalization.* Export it with opset 18 or newer",
    ):
        with_opset(model, 17)
