"""Foreign networks, written from their documented structure as functions over a state dict with foreign names."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

RESNET_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class ForeignNet:
    """Functional layers whose weights are made on first use, so that a forward pass defines names and shapes."""

    def __init__(self, *, device: str = "cpu", seed: int = 0) -> None:
        self.state: dict[str, Tensor] = {}
        self.device = device
        self.generator = torch.Generator().manual_seed(seed)

    def _weight(self, key, shape, *, low=None, fan_in=None):
        if key not in self.state:
            if self.device == "meta":
                self.state[key] = torch.empty(shape, device="meta")
            elif low is not None:
                self.state[key] = low + torch.rand(shape, generator=self.generator)
            else:
                scale = 0.1 if fan_in is None else math.sqrt(2 / fan_in)
                self.state[key] = scale * torch.randn(shape, generator=self.generator)
        return self.state[key]

    def conv(self, name, x, out, kernel=1, *, stride=1, rate=1, groups=1, bias=False):
        fan_in = x.shape[1] // groups * kernel**2
        weight = self._weight(f"{name}.weight", (out, x.shape[1] // groups, kernel, kernel), fan_in=fan_in)
        offset = self._weight(f"{name}.bias", (out,)) if bias else None
        return functional.conv2d(x, weight, offset, stride, rate * (kernel // 2), rate, groups)

    def norm(self, name, x, eps=1e-5):
        channels = (x.shape[1],)
        weight, bias = self._weight(f"{name}.weight", channels, low=0.5), self._weight(f"{name}.bias", channels)
        mean, var = (
            self._weight(f"{name}.running_mean", channels),
            self._weight(f"{name}.running_var", channels, low=0.5),
        )
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return functional.batch_norm(x, mean, var, weight, bias, eps=eps)

    def conv_norm(self, conv, norm, x, out, kernel=1, *, act=functional.relu, eps=1e-5, **kwargs):
        y = self.norm(norm, self.conv(conv, x, out, kernel, **kwargs), eps)
        return y if act is None else act(y)

    def parameters(self) -> int:
        """Number of learned values, as torchvision counts them."""
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        return sum(value.numel() for key, value in self.state.items() if not key.endswith(buffers))


def resnet(net, x, depth, prefix, stages):
    """torchvision names; `stages` gives (stride, rate of the first block, rate of the others) of layers 2 to 4."""
    x = net.conv_norm(f"{prefix}conv1", f"{prefix}bn1", x, 64, 7, stride=2)
    x = functional.max_pool2d(x, 3, 2, 1)
    outputs = []
    for stage, (stride, entry_rate, rate) in enumerate(((1, 1, 1), *stages)):
        mid = 64 * 2**stage
        for block in range(RESNET_BLOCKS[depth][stage]):
            name, first = f"{prefix}layer{stage + 1}.{block}", block == 0
            y = net.conv_norm(f"{name}.conv1", f"{name}.bn1", x, mid)
            y = net.conv_norm(
                f"{name}.conv2",
                f"{name}.bn2",
                y,
                mid,
                3,
                stride=stride if first else 1,
                rate=entry_rate if first else rate,
            )
            y = net.conv_norm(f"{name}.conv3", f"{name}.bn3", y, 4 * mid, act=None)
            if first:
                down = f"{name}.downsample"
                x = net.conv_norm(f"{down}.0", f"{down}.1", x, 4 * mid, stride=stride, act=None)
            x = functional.relu(x + y)
        outputs.append(x)
    return outputs


def separable(net, conv, norm, x, out, rate=1):
    x = net.conv(f"{conv}.0", x, x.shape[1], 3, rate=rate, groups=x.shape[1])
    return net.conv_norm(f"{conv}.1", norm, x, out)


def aspp(net, prefix, x, rates=(12, 24, 36), *, is_separable=False):
    branches = [net.conv_norm(f"{prefix}convs.0.0", f"{prefix}convs.0.1", x, 256)]
    for index, rate in enumerate(rates, start=1):
        name = f"{prefix}convs.{index}"
        if is_separable:
            branches.append(separable(net, f"{name}.0", f"{name}.1", x, 256, rate))
        else:
            branches.append(net.conv_norm(f"{name}.0", f"{name}.1", x, 256, 3, rate=rate))
    pooled = net.conv_norm(f"{prefix}convs.4.1", f"{prefix}convs.4.2", x.mean((2, 3), keepdim=True), 256)
    branches.append(functional.interpolate(pooled, x.shape[2:], mode="bilinear"))
    return net.conv_norm(f"{prefix}project.0", f"{prefix}project.1", torch.cat(branches, 1), 256)


def torchvision_head(net, x, aux, classes=21):
    y = net.conv_norm("classifier.1", "classifier.2", aspp(net, "classifier.0.", x), 256, 3)
    logits = net.conv("classifier.4", y, classes, bias=True)
    y = net.conv_norm("aux_classifier.0", "aux_classifier.1", aux, aux.shape[1] // 4, 3)
    net.conv("aux_classifier.4", y, classes, bias=True)
    return logits


def torchvision_resnet(depth):
    def forward(net, x):
        *_, aux, features = resnet(net, x, depth, "backbone.", ((2, 1, 1), (1, 1, 2), (1, 2, 4)))
        return torchvision_head(net, features, aux)

    return forward


# arXiv 1905.02244, table 1: kernel, hidden, out, squeeze-excite channels, hard-swish, stride, rate (torchvision).
MOBILENET_V3 = (
    (3, 16, 16, 0, False, 1, 1),
    (3, 64, 24, 0, False, 2, 1),
    (3, 72, 24, 0, False, 1, 1),
    (5, 72, 40, 24, False, 2, 1),
    (5, 120, 40, 32, False, 1, 1),
    (5, 120, 40, 32, False, 1, 1),
    (3, 240, 80, 0, True, 2, 1),
    (3, 200, 80, 0, True, 1, 1),
    (3, 184, 80, 0, True, 1, 1),
    (3, 184, 80, 0, True, 1, 1),
    (3, 480, 112, 120, True, 1, 1),
    (3, 672, 112, 168, True, 1, 1),
    (5, 672, 160, 168, True, 1, 2),
    (5, 960, 160, 240, True, 1, 2),
    (5, 960, 160, 240, True, 1, 2),
)


def torchvision_mobilenet_v3(net, x):
    eps = 1e-3
    x = net.conv_norm("backbone.0.0", "backbone.0.1", x, 16, 3, stride=2, act=functional.hardswish, eps=eps)
    for index, (kernel, hidden, out, squeezed, hard, stride, rate) in enumerate(MOBILENET_V3, start=1):
        act = functional.hardswish if hard else functional.relu
        layers = iter(f"backbone.{index}.block.{number}" for number in range(4))
        y = x
        if hidden != x.shape[1]:
            name = next(layers)
            y = net.conv_norm(f"{name}.0", f"{name}.1", y, hidden, act=act, eps=eps)
        name = next(layers)
        y = net.conv_norm(
            f"{name}.0", f"{name}.1", y, hidden, kernel, stride=stride, rate=rate, groups=hidden, act=act, eps=eps
        )
        if squeezed:
            name = next(layers)
            gate = net.conv(f"{name}.fc1", y.mean((2, 3), keepdim=True), squeezed, bias=True).relu()
            y = y * functional.hardsigmoid(net.conv(f"{name}.fc2", gate, hidden, bias=True))
        name = next(layers)
        y = net.conv_norm(f"{name}.0", f"{name}.1", y, out, act=None, eps=eps)
        x = x + y if stride == 1 and x.shape[1] == out else y
        if index == 4:
            aux = x
    x = net.conv_norm("backbone.16.0", "backbone.16.1", x, 960, act=functional.hardswish, eps=eps)
    return torchvision_head(net, x, aux)


def smp_mobilenet_v2(net, x):
    """Output stride 16: the last two stages at rate 2, their first block included."""
    prefix, relu6 = "encoder.features.", functional.relu6
    x = net.conv_norm(f"{prefix}0.0", f"{prefix}0.1", x, 32, 3, stride=2, act=relu6)
    index, low_level = 0, None
    stages = ((1, 16, 1, 1, 1), (6, 24, 2, 2, 1), (6, 32, 3, 2, 1), (6, 64, 4, 2, 1), (6, 96, 3, 1, 1))
    for expansion, out, count, stride, rate in (*stages, (6, 160, 3, 1, 2), (6, 320, 1, 1, 2)):
        for block in range(count):
            index += 1
            name, hidden, layer, y = f"{prefix}{index}.conv", expansion * x.shape[1], 0, x
            if expansion != 1:
                y = net.conv_norm(f"{name}.0.0", f"{name}.0.1", y, hidden, act=relu6)
                layer = 1
            step = stride if block == 0 else 1
            y = net.conv_norm(
                f"{name}.{layer}.0", f"{name}.{layer}.1", y, hidden, 3, stride=step, rate=rate, groups=hidden, act=relu6
            )
            y = net.conv_norm(f"{name}.{layer + 1}", f"{name}.{layer + 2}", y, out, act=None)
            x = x + y if block else y
        low_level = x if out == 24 else low_level
    return low_level, net.conv_norm(f"{prefix}18.0", f"{prefix}18.1", x, 1280, act=relu6)


def smp_resnet(depth, output_stride):
    stages = ((2, 1, 1), (2, 1, 1), (1, 2, 2)) if output_stride == 16 else ((2, 1, 1), (1, 2, 2), (1, 4, 4))

    def encoder(net, x):
        low_level, *_, features = resnet(net, x, depth, "encoder.", stages)
        return low_level, features

    return encoder


def smp_v3(encoder):
    def forward(net, x):
        _, features = encoder(net, x)
        y = net.conv_norm("decoder.conv", "decoder.bn", aspp(net, "decoder.aspp.", features), 256, 3)
        return net.conv("segmentation_head.0", y, 21, bias=True)

    return forward


def smp_v3plus(encoder):
    def forward(net, x):
        low_level, features = encoder(net, x)
        y = aspp(net, "decoder.aspp.0.", features, is_separable=True)
        y = separable(net, "decoder.aspp.1", "decoder.aspp.2", y, 256)
        y = functional.interpolate(y, low_level.shape[2:], mode="bilinear", align_corners=True)
        skip = net.conv_norm("decoder.block1.0", "decoder.block1.1", low_level, 48)
        y = separable(net, "decoder.block2.0", "decoder.block2.1", torch.cat([y, skip], 1), 256)
        return net.conv("segmentation_head.0", y, 21, bias=True)

    return forward


def kazuto1011(net, x):
    x = net.conv_norm("base.layer1.conv1.conv", "base.layer1.conv1.bn", x, 64, 7, stride=2)
    x = functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    for stage, (count, stride, rate) in enumerate(((3, 1, 1), (4, 2, 1), (23, 1, 2), (3, 1, 4))):
        mid = 64 * 2**stage
        for block in range(count):
            name, step = f"base.layer{stage + 2}.block{block + 1}", stride if block == 0 else 1
            y = net.conv_norm(f"{name}.reduce.conv", f"{name}.reduce.bn", x, mid, stride=step)
            y = net.conv_norm(f"{name}.conv3x3.conv", f"{name}.conv3x3.bn", y, mid, 3, rate=rate)
            y = net.conv_norm(f"{name}.increase.conv", f"{name}.increase.bn", y, 4 * mid, act=None)
            if block == 0:
                x = net.conv_norm(f"{name}.shortcut.conv", f"{name}.shortcut.bn", x, 4 * mid, stride=step, act=None)
            x = functional.relu(x + y)
    return sum(net.conv(f"base.aspp.c{i}", x, 21, 3, rate=6 * (i + 1), bias=True) for i in range(4))


#: Foreign network → (architecture here, its output stride, forward pass over a `ForeignNet`).
FOREIGN = {
    "torchvision resnet50": ("deeplabv3_resnet50", 8, torchvision_resnet(50)),
    "torchvision resnet101": ("deeplabv3_resnet101", 8, torchvision_resnet(101)),
    "torchvision mobilenet_v3_large": ("deeplabv3_mobilenet_v3_large", 16, torchvision_mobilenet_v3),
    "smp v3 resnet50 os8": ("deeplabv3_resnet50_smp", 8, smp_v3(smp_resnet(50, 8))),
    "smp v3 resnet101 os16": ("deeplabv3_resnet101_smp", 16, smp_v3(smp_resnet(101, 16))),
    "smp v3 mobilenet_v2 os16": ("deeplabv3_mobilenet_v2", 16, smp_v3(smp_mobilenet_v2)),
    "smp v3+ resnet50 os16": ("deeplabv3plus_resnet50", 16, smp_v3plus(smp_resnet(50, 16))),
    "smp v3+ resnet101 os8": ("deeplabv3plus_resnet101", 8, smp_v3plus(smp_resnet(101, 8))),
    "smp v3+ mobilenet_v2 os16": ("deeplabv3plus_mobilenet_v2", 16, smp_v3plus(smp_mobilenet_v2)),
    "kazuto1011 v2 resnet101": ("deeplabv2_resnet101", 8, kazuto1011),
}
