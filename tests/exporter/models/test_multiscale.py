"""Multi-scale fusion, in torch and as one ONNX graph."""

from __future__ import annotations

from collections import Counter

import onnx
import onnxruntime as ort
import pytest
import torch
from tolerances import MULTISCALE_ONNX_RELATIVE
from torch import nn
from torch.export import Dim
from torch.nn import functional

from atrous.errors import ExportError
from atrous.exporter.models import MultiScale, create_model


def tiny_model(seed=0):
    """Two strided convolutions: [N, 3, H, W] → [N, 4, H/4, W/4]."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2, padding=1)
    ).eval()


@pytest.mark.parametrize("align_corners", [False, True])
@torch.no_grad()
def test_fuses_by_the_maximum_at_the_size_of_the_largest_scale(align_corners):
    model = tiny_model()
    image = torch.randn(2, 3, 37, 50)
    full = model(image)
    candidates = [full]
    for scale in (0.5, 0.75):
        logits = model(functional.interpolate(image, scale_factor=scale, mode="bilinear"))
        candidates.append(functional.interpolate(logits, full.shape[2:], mode="bilinear", align_corners=align_corners))
    fused = MultiScale(model, align_corners=align_corners)(image)
    assert torch.equal(fused, torch.stack(candidates).amax(0))
    # Every scale wins somewhere, or the test would say nothing about the maximum.
    assert all((fused == candidate).any() for candidate in candidates)


@torch.no_grad()
def test_one_scale_is_the_model_itself():
    model, image = tiny_model(), torch.randn(1, 3, 24, 24)
    assert torch.equal(MultiScale(model, (1.0,))(image), model(image))


def test_the_order_of_the_scales_does_not_matter():
    model, image = tiny_model(), torch.randn(1, 3, 24, 32)
    assert torch.equal(MultiScale(model, (1.0, 0.5, 1.25))(image), MultiScale(model, (1.25, 1.0, 0.5))(image))


@pytest.mark.parametrize("scales", [(), (0.5, 0.0), (-1.0, 1.0)])
def test_scales_must_be_positive(scales):
    with pytest.raises(ExportError, match="needs positive scales"):
        MultiScale(tiny_model(), scales)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@torch.no_grad()
def test_exports_as_one_graph_for_every_size(tmp_path):
    model = MultiScale(tiny_model()).eval()
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.onnx.export(
        model, (torch.randn(2, 3, 37, 50),), dynamo=True, dynamic_shapes=(sizes,), verbose=False
    )
    path = tmp_path / "multiscale.onnx"
    program.save(path)
    operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    # Two images go down, two score maps come up.
    assert (operators["Resize"], operators["Max"]) == (4, 2)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in [(2, 3, 37, 50), (1, 3, 64, 64), (3, 3, 65, 33), (1, 3, 129, 70)]:
        image = torch.randn(shape)
        expected = model(image)
        (actual,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        assert actual.shape == expected.shape
        assert (torch.from_numpy(actual) - expected).abs().max() <= MULTISCALE_ONNX_RELATIVE * expected.abs().max()


def test_wraps_a_reference_network():
    with torch.device("meta"):
        model = MultiScale(create_model("deeplabv2_resnet101", num_classes=21))
        assert model(torch.empty(1, 3, 97, 129)).shape == (1, 21, 13, 17)
