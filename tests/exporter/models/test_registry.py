"""Every architecture: sizes, strides, rates and parameters, without computing anything (meta device)."""

from __future__ import annotations

from functools import cache
from itertools import groupby

import pytest
import torch
from reference_networks import logits_stride
from torch import nn

from atrous.errors import ExportError
from atrous.exporter.models import ARCHITECTURES, create_model
from atrous.exporter.models.inverted_residual import InvertedResidual
from atrous.exporter.models.layers import SamePadded

pytestmark = pytest.mark.slow  # in sum

# 21 classes. The DeepLabv3 counts plus the auxiliary heads are torchvision's documented ones: see test_adapters.py.
PARAMETERS = {
    "deeplab_largefov_vgg16": 20_505_429,
    "deeplab_aspp_s_vgg16": 37_877_652,
    "deeplab_aspp_l_vgg16": 37_877_652,
    "deeplabv2_resnet101": 44_048_532,
    "deeplabv3_resnet50": 39_638_869,
    "deeplabv3_resnet101": 58_630_997,
    "deeplabv3_resnet50_smp": 39_638_869,
    "deeplabv3_resnet101_smp": 58_630_997,
    "deeplabv3_mobilenet_v2": 12_653_077,
    "deeplabv3_mobilenet_v3_large": 11_025_477,
    "deeplabv3plus_resnet50": 26_682_725,
    "deeplabv3plus_resnet101": 45_674_853,
    "deeplabv3plus_mobilenet_v2": 4_383_653,
    "deeplabv3plus_efficientnet_lite0": 3_774_277,
    "deeplabv3_xception65": 40_892_485,
    "deeplabv3plus_xception65": 41_055_413,
    "deeplabv3_mobilenet_v2_vainf": 5_113_877,
    "deeplabv3plus_resnet50_vainf": 39_761_845,
    "deeplabv3plus_resnet101_vainf": 58_753_973,
    "deeplabv3plus_mobilenet_v2_vainf": 5_225_717,
    "deeplabv3plus_resnet101_jfzhang95": 59_344_309,
    "deeplabv3plus_xception65_jfzhang95": 54_705_317,
    "deeplabv3plus_mobilenet_v2_jfzhang95": 5_816_053,
    "deeplabv3_resnet101_kazuto1011": 58_040_661,
    "deeplabv3plus_resnet101_kazuto1011": 59_344_309,
    "deeplabv3_resnet50_mmseg": 65_749_365,
    "deeplabv3_resnet101_mmseg": 84_741_493,
    "deeplabv3plus_resnet50_mmseg": 41_226_213,
    "deeplabv3plus_resnet101_mmseg": 60_218_341,
    "deeplabv3_mobilenet_v2_mmseg": 18_376_469,
    "deeplabv3plus_mobilenet_v2_mmseg": 15_018_821,
    "deeplabv3_mobilenet_v2_hf": 2_113_557,
    "deeplabv3_mobilevit_small_hf": 6_357_941,
    "deeplabv3_mobilevit_x_small_hf": 2_944_069,
    "deeplabv3_mobilevit_xx_small_hf": 1_854_853,
}

# (rate, number of spatial convolutions in a row that have it), in order of definition.
_VGG_TRUNK = [(1, 10), (2, 3)]
RATES = {
    ("deeplab_largefov_vgg16", 8): [*_VGG_TRUNK, (12, 1)],
    ("deeplab_aspp_s_vgg16", 8): [(1, 10), (2, 4), (4, 1), (8, 1), (12, 1)],
    ("deeplab_aspp_l_vgg16", 8): [*_VGG_TRUNK, (6, 1), (12, 1), (18, 1), (24, 1)],
    ("deeplabv2_resnet101", 8): [(1, 8), (2, 23), (4, 3), (6, 1), (12, 1), (18, 1), (24, 1)],
    ("deeplabv3_resnet50", 8): [(1, 9), (2, 6), (4, 2), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_resnet50", 16): [(1, 15), (2, 2), (6, 1), (12, 1), (18, 1), (1, 1)],
    ("deeplabv3_resnet101", 8): [(1, 9), (2, 23), (4, 2), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_resnet101", 16): [(1, 32), (2, 2), (6, 1), (12, 1), (18, 1), (1, 1)],
    ("deeplabv3_resnet50_smp", 8): [(1, 8), (2, 6), (4, 3), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_resnet50_smp", 16): [(1, 14), (2, 3), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_resnet101_smp", 8): [(1, 8), (2, 23), (4, 3), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_resnet101_smp", 16): [(1, 31), (2, 3), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_mobilenet_v2", 8): [(1, 7), (2, 7), (4, 4), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_mobilenet_v2", 16): [(1, 14), (2, 4), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_mobilenet_v3_large", 16): [(1, 13), (2, 3), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_mobilenet_v3_large", 8): [(1, 7), (2, 6), (4, 3), (24, 1), (48, 1), (72, 1), (1, 1)],
    ("deeplabv3plus_resnet50", 16): [(1, 14), (2, 3), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3plus_resnet50", 8): [(1, 8), (2, 6), (4, 3), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3plus_resnet101", 16): [(1, 31), (2, 3), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3plus_resnet101", 8): [(1, 8), (2, 23), (4, 3), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3plus_mobilenet_v2", 16): [(1, 14), (2, 4), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3plus_mobilenet_v2", 8): [(1, 7), (2, 7), (4, 4), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3plus_efficientnet_lite0", 16): [(1, 13), (2, 4), (6, 1), (12, 1), (18, 1), (1, 2)],
    ("deeplabv3plus_efficientnet_lite0", 8): [(1, 7), (2, 6), (4, 4), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3_xception65", 16): [(1, 62), (2, 3), (6, 1), (12, 1), (18, 1)],
    ("deeplabv3_xception65", 8): [(1, 11), (2, 51), (4, 3), (12, 1), (24, 1), (36, 1)],
    ("deeplabv3plus_xception65", 16): [(1, 62), (2, 3), (6, 1), (12, 1), (18, 1), (1, 2)],
    ("deeplabv3plus_xception65", 8): [(1, 11), (2, 51), (4, 3), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3_mobilenet_v2_vainf", 16): [(1, 15), (2, 3), (6, 1), (12, 1), (18, 1), (1, 1)],
    ("deeplabv3_mobilenet_v2_vainf", 8): [(1, 8), (2, 7), (4, 3), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3plus_resnet50_vainf", 16): [(1, 15), (2, 2), (6, 1), (12, 1), (18, 1), (1, 1)],
    ("deeplabv3plus_resnet50_vainf", 8): [(1, 9), (2, 6), (4, 2), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3plus_resnet101_vainf", 16): [(1, 32), (2, 2), (6, 1), (12, 1), (18, 1), (1, 1)],
    ("deeplabv3plus_resnet101_vainf", 8): [(1, 9), (2, 23), (4, 2), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3plus_mobilenet_v2_vainf", 16): [(1, 15), (2, 3), (6, 1), (12, 1), (18, 1), (1, 1)],
    ("deeplabv3plus_mobilenet_v2_vainf", 8): [(1, 8), (2, 7), (4, 3), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3plus_resnet101_jfzhang95", 16): [(1, 31), (2, 1), (4, 1), (8, 1), (6, 1), (12, 1), (18, 1), (1, 2)],
    ("deeplabv3plus_resnet101_jfzhang95", 8): [
        (1, 8),
        (2, 23),
        (4, 1),
        (8, 1),
        (16, 1),
        (12, 1),
        (24, 1),
        (36, 1),
        (1, 2),
    ],
    ("deeplabv3plus_xception65_jfzhang95", 16): [(1, 62), (2, 3), (6, 1), (12, 1), (18, 1), (1, 2)],
    ("deeplabv3plus_xception65_jfzhang95", 8): [(1, 11), (2, 50), (1, 1), (4, 3), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3plus_mobilenet_v2_jfzhang95", 16): [(1, 17), (2, 1), (6, 1), (12, 1), (18, 1), (1, 2)],
    ("deeplabv3plus_mobilenet_v2_jfzhang95", 8): [(1, 11), (2, 6), (4, 1), (12, 1), (24, 1), (36, 1), (1, 2)],
    ("deeplabv3_resnet101_kazuto1011", 16): [(1, 31), (2, 1), (4, 1), (8, 1), (6, 1), (12, 1), (18, 1)],
    ("deeplabv3_resnet101_kazuto1011", 8): [(1, 8), (2, 23), (4, 1), (8, 1), (16, 1), (12, 1), (24, 1), (36, 1)],
    ("deeplabv3plus_resnet101_kazuto1011", 16): [(1, 31), (2, 1), (4, 1), (8, 1), (6, 1), (12, 1), (18, 1), (1, 2)],
    ("deeplabv3plus_resnet101_kazuto1011", 8): [
        (1, 8),
        (2, 23),
        (4, 1),
        (8, 1),
        (16, 1),
        (12, 1),
        (24, 1),
        (36, 1),
        (1, 2),
    ],
    ("deeplabv3_resnet50_mmseg", 8): [(1, 11), (2, 6), (4, 2), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_resnet50_mmseg", 16): [(1, 17), (2, 1), (4, 1), (6, 1), (12, 1), (18, 1), (1, 1)],
    ("deeplabv3_resnet101_mmseg", 8): [(1, 11), (2, 23), (4, 2), (12, 1), (24, 1), (36, 1), (1, 1)],
    ("deeplabv3_resnet101_mmseg", 16): [(1, 34), (2, 1), (4, 1), (6, 1), (12, 1), (18, 1), (1, 1)],
    ("deeplabv3plus_resnet50_mmseg", 8): [(1, 11), (2, 6), (4, 2), (12, 1), (24, 1), (36, 1), (1, 3)],
    ("deeplabv3plus_resnet50_mmseg", 16): [(1, 17), (2, 1), (4, 1), (6, 1), (12, 1), (18, 1), (1, 3)],
    ("deeplabv3plus_resnet101_mmseg", 8): [(1, 11), (2, 23), (4, 2), (12, 1), (24, 1), (36, 1), (1, 3)],
    ("deeplabv3plus_resnet101_mmseg", 16): [(1, 34), (2, 1), (4, 1), (6, 1), (12, 1), (18, 1), (1, 3)],
    ("deeplabv3_mobilenet_v2_mmseg", 8): [
        (1, 7),
        (2, 1),
        (1, 3),
        (2, 1),
        (1, 2),
        (4, 1),
        (1, 2),
        (4, 1),
        (12, 1),
        (24, 1),
        (36, 1),
        (1, 1),
    ],
    ("deeplabv3plus_mobilenet_v2_mmseg", 8): [
        (1, 7),
        (2, 1),
        (1, 3),
        (2, 1),
        (1, 2),
        (4, 1),
        (1, 2),
        (4, 1),
        (12, 1),
        (24, 1),
        (36, 1),
        (1, 3),
    ],
    ("deeplabv3_mobilenet_v2_hf", 8): [(1, 8), (2, 7), (4, 3)],
    ("deeplabv3_mobilenet_v2_hf", 16): [(1, 15), (2, 3)],
    ("deeplabv3_mobilevit_small_hf", 16): [(1, 14), (6, 1), (12, 1), (18, 1)],
    ("deeplabv3_mobilevit_x_small_hf", 16): [(1, 14), (6, 1), (12, 1), (18, 1)],
    ("deeplabv3_mobilevit_xx_small_hf", 16): [(1, 14), (6, 1), (12, 1), (18, 1)],
}

#: Networks whose first pool rounds up, like Caffe's.
CAFFE_POOLED = ("deeplabv2_resnet101", "deeplabv3_resnet101_kazuto1011", "deeplabv3plus_resnet101_kazuto1011")
#: Networks whose first convolution is not padded, so that they take no image of one pixel.
UNPADDED = ("deeplabv3_mobilenet_v2_vainf", "deeplabv3plus_mobilenet_v2_vainf")
SIZES = [(64, 96), (65, 97), (127, 63), (1, 1)]
EVERY = [(name, stride) for name, entry in ARCHITECTURES.items() for stride in entry.output_strides]


@cache
def build(name, output_stride=None, num_classes=21):
    with torch.device("meta"):
        return create_model(name, num_classes=num_classes, output_stride=output_stride).eval()


def expected_length(length, name, stride):
    """Halve as the layers do: strided convolutions round up, Caffe's pools go to the next sample past the edge."""
    if "vgg16" in name:
        halvings = ["pool"] * 3
    elif name in CAFFE_POOLED:
        halvings = ["conv", "pool", *["conv"] * (stride.bit_length() - 3)]
    else:
        halvings = ["conv"] * (stride.bit_length() - 1)
    if name in UNPADDED:
        halvings[0] = "unpadded"
    for kind in halvings:
        if kind == "unpadded":
            length = (length - 1) // 2
        else:
            length = length // 2 + 1 if kind == "pool" and length > 1 else (length + 1) // 2
    return length


def test_the_tables_cover_the_registry():
    assert set(PARAMETERS) == set(ARCHITECTURES)
    assert set(RATES) == set(EVERY)
    assert all(name == entry.name for name, entry in ARCHITECTURES.items())


@pytest.mark.parametrize(("name", "output_stride"), EVERY)
def test_output_shape_follows_from_the_stride(name, output_stride):
    model = build(name, output_stride)
    stride = logits_stride(name, output_stride)
    for height, width in SIZES[:3] if name in UNPADDED else SIZES:
        logits = model(torch.empty(2, 3, height, width, device="meta"))
        expected = (2, 21, expected_length(height, name, stride), expected_length(width, name, stride))
        assert logits.shape == expected, (height, width)


@pytest.mark.parametrize(("name", "output_stride"), EVERY)
def test_multiples_of_the_output_stride_leave_no_remainder(name, output_stride):
    entry = ARCHITECTURES[name]
    stride = logits_stride(name, output_stride)
    # With aligned corners the first and last logits lie on the first and last pixels: (h − 1) · stride = H − 1.
    length = 4 * output_stride + (1 if entry.align_corners else 0)
    logits = build(name, output_stride)(torch.empty(1, 3, length, length, device="meta"))
    covered = (logits.shape[2] - 1) * stride + 1 if entry.align_corners else logits.shape[2] * stride
    # Caffe's pools give one sample more than H / 8 at sizes that are upsampled with half-pixel centres.
    surplus = stride if name in CAFFE_POOLED else 0
    assert covered == length + surplus


@pytest.mark.parametrize(("name", "output_stride"), EVERY)
def test_rates_of_every_spatial_convolution(name, output_stride):
    convolutions = [module for module in build(name, output_stride).modules() if isinstance(module, nn.Conv2d)]
    spatial = [conv for conv in convolutions if conv.kernel_size != (1, 1)]
    assert all(conv.dilation[0] == conv.dilation[1] for conv in spatial)
    runs = [(rate, len(list(run))) for rate, run in groupby(conv.dilation[0] for conv in spatial)]
    assert runs == RATES[name, output_stride]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_atrous_convolutions_keep_the_size(name):
    model = build(name)
    unpadded = {
        id(layer.layers[-2][0])
        for layer in model.modules()
        if isinstance(layer, InvertedResidual) and (layer.padding or isinstance(layer.layers[-2], SamePadded))
    }
    if name.endswith(("mobilenet_v2_vainf", "mobilenet_v2_hf")):
        unpadded.add(id(model.backbone.stem[0]))
    for module in model.modules():
        if id(module) in unpadded:
            assert module.padding == (0, 0)
        elif isinstance(module, nn.Conv2d):
            assert module.padding == tuple(
                rate * (kernel // 2) for rate, kernel in zip(module.dilation, module.kernel_size, strict=True)
            )
            assert module.stride == (1, 1) or module.dilation == (1, 1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters(name):
    model = build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_output_stride_changes_no_weight(name):
    shapes = [
        {key: value.shape for key, value in build(name, stride).state_dict().items()}
        for stride in ARCHITECTURES[name].output_strides
    ]
    assert all(each == shapes[0] for each in shapes)


def test_the_default_output_stride_is_the_first():
    assert ARCHITECTURES["deeplabv3_resnet50"].default_output_stride == 8
    logits = build("deeplabv3_resnet50", num_classes=2)(torch.empty(1, 3, 64, 64, device="meta"))
    assert logits.shape == (1, 2, 8, 8)


def test_an_unknown_name_suggests_the_closest_and_lists_all():
    with pytest.raises(ExportError, match="Did you mean 'deeplabv3plus_resnet50'") as caught:
        create_model("deeplabv3plus-resnet50", num_classes=21)
    assert all(name in str(caught.value) for name in ARCHITECTURES)
    with pytest.raises(ExportError, match=r"unknown architecture 'zzz'\. Known: "):
        create_model("zzz", num_classes=21)


def test_an_unsupported_output_stride_names_those_that_are():
    with pytest.raises(ExportError, match="deeplabv3_resnet50 has output stride 8 or 16; got 32"):
        create_model("deeplabv3_resnet50", num_classes=21, output_stride=32)
    with pytest.raises(ExportError, match="deeplabv2_resnet101 has output stride 8; got 16"):
        create_model("deeplabv2_resnet101", num_classes=21, output_stride=16)


def test_no_class_is_an_error():
    with pytest.raises(ExportError, match="at least one class; got num_classes=0"):
        create_model("deeplabv3_resnet50", num_classes=0)
