"""`DeinterlaceAtrousConv` on a whole network, as the exporter writes it."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from tolerances import DEINTERLACE_RELATIVE
from torch import nn

from atrous.exporter.models import create_model
from atrous.exporter.passes import DeinterlaceAtrousConv, run_passes

RATES = [2, 2, 2, 2, 6, 12, 18]  # three blocks of stage 6, the one of stage 7, three ASPP branches


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    """DeepLabv3+ EfficientNet-Lite0 at output stride 16, dynamic in N, H and W."""
    torch.manual_seed(0)
    model = create_model("deeplabv3plus_efficientnet_lite0", num_classes=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    # One training step sets the statistics, without which an untrained net fades to its bias and any pass is "equal".
    model.train()(torch.randn(4, 3, 96, 128))
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # torch 2.13 warns of itself
        program = torch.onnx.export(
            model.eval(),
            (torch.randn(2, 3, 64, 96),),
            dynamo=True,
            dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            verbose=False,
        )
    return program.model_proto


@pytest.fixture(scope="module")
def deinterlaced(exported: onnx.ModelProto) -> onnx.ModelProto:
    deinterlace = DeinterlaceAtrousConv()
    model = run_passes(exported, [deinterlace])
    assert len(deinterlace.rewritten) == len(RATES)
    assert deinterlace.skipped == ()
    return model


def run(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x})
    return logits


@pytest.mark.slow
def test_export_has_the_rates_of_the_architecture(exported: onnx.ModelProto) -> None:
    dilations = [
        max(attribute.ints)
        for node in exported.graph.node
        for attribute in node.attribute
        if attribute.name == "dilations"
    ]
    assert [rate for rate in dilations if rate > 1] == RATES


@pytest.mark.parametrize("shape", [(1, 3, 65, 97), (2, 3, 129, 75), (1, 3, 33, 241), (1, 3, 1, 1)])
def test_equal_on_odd_sizes(
    exported: onnx.ModelProto, deinterlaced: onnx.ModelProto, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = rng.standard_normal(shape, np.float32)
    expected, actual = run(exported, x), run(deinterlaced, x)
    assert expected.std() > 0.1
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= DEINTERLACE_RELATIVE * np.abs(expected).max()


def test_parameters_are_shared(exported: onnx.ModelProto, deinterlaced: onnx.ModelProto) -> None:
    def floats(model: onnx.ModelProto) -> list[str]:
        float32 = onnx.TensorProto.FLOAT
        return sorted(tensor.name for tensor in model.graph.initializer if tensor.data_type == float32)

    assert floats(deinterlaced) == floats(exported)
