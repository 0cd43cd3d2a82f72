"""Aligned Xception-65: its cost is the paper's, and its blocks compute what the authors' code computes."""

from __future__ import annotations

import torch
from foreign_networks import ForeignNet
from tolerances import ADAPTER_RELATIVE
from torch import nn
from torch.nn import functional

from atrous.exporter.checkpoints import load_into
from atrous.exporter.models import create_model
from atrous.exporter.models.xception import Xception65

#: arXiv 1802.02611, table 5: decoder and separable convolutions, output stride 16, one scale, 513×513 pixels.
PUBLISHED_MULTIPLY_ADDS = 54.17e9


def test_multiply_adds_are_those_of_the_paper():
    with torch.device("meta"):
        model = create_model("deeplabv3plus_xception65", num_classes=21, output_stride=16).eval()
    multiply_adds = 0

    def count(conv, _, output):
        nonlocal multiply_adds
        multiply_adds += output.numel() * conv.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    model(torch.empty(1, 3, 513, 513, device="meta"))
    # The paper counts more than convolutions.
    assert 0.995 < multiply_adds / PUBLISHED_MULTIPLY_ADDS < 1


def separable(net, name, x, out, *, inner=None, act=None, stride=1, rate=1):
    channels, eps = x.shape[1], 1e-3
    depthwise = {"stride": stride, "rate": rate, "groups": channels}
    x = net.conv_norm(f"{name}.0.0", f"{name}.0.1", x, channels, 3, act=inner, eps=eps, **depthwise)
    return net.conv_norm(f"{name}.1.0", f"{name}.1.1", x, out, act=act, eps=eps)


def block(net, name, x, widths, *, stride=1, rate=1):
    """The output, and the features before the stride."""
    y = separable(net, f"{name}.first", x.relu(), widths[0], rate=rate)
    features = separable(net, f"{name}.second", y.relu(), widths[1], rate=rate)
    y = separable(net, f"{name}.third", features.relu(), widths[2], stride=stride, rate=rate)
    if stride != 1 or x.shape[1] != widths[2]:
        shortcut = f"{name}.shortcut"
        x = net.conv_norm(f"{shortcut}.0", f"{shortcut}.1", x, widths[2], stride=stride, act=None, eps=1e-3)
    return y + x, features


def xception65(net, x):
    """Output stride 8: the third block's stride becomes rate 2 behind it, the exit flow's rate 4."""
    x = net.conv_norm("stem.0.0", "stem.0.1", x, 32, 3, stride=2, eps=1e-3)
    x = net.conv_norm("stem.1.0", "stem.1.1", x, 64, 3, eps=1e-3)
    x, _ = block(net, "entry1", x, [128] * 3, stride=2)
    x, low_level = block(net, "entry2", x, [256] * 3, stride=2)
    x, _ = block(net, "entry3", x, [728] * 3)
    for index in range(16):
        x, _ = block(net, f"middle.{index}", x, [728] * 3, rate=2)
    x, _ = block(net, "exit", x, [728, 1024, 1024], rate=2)
    for index, width in enumerate([1536, 1536, 2048]):
        x = separable(net, f"last.{index}", x, width, inner=functional.relu, act=functional.relu, rate=4)
    return low_level, x


@torch.no_grad()
def test_computes_what_the_authors_code_computes():
    image = torch.randn(1, 3, 33, 47, generator=torch.Generator().manual_seed(1))
    net = ForeignNet()
    expected = xception65(net, image)
    with torch.device("meta"):
        model = Xception65(8).to_empty(device="cpu").eval()
    load_into(model, net.state, source="atrous")
    for actual, wanted in zip(model(image), expected, strict=True):
        assert actual.shape == wanted.shape
        assert (actual - wanted).abs().max() <= ADAPTER_RELATIVE * wanted.abs().max()
