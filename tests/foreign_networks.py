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


def resize(x, like, *, align_corners=False):
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=align_corners)


def grid_rates(depth, rates):
    """(stride, rate of each block) of layers 2 to 4 from (stride, rates of the first blocks, the last repeated)."""
    return [
        (stride, [*each, *[each[-1]] * (count - len(each))])
        for (stride, each), count in zip(rates, RESNET_BLOCKS[depth][1:], strict=True)
    ]


def grid_resnet(net, x, depth, prefix, rates, *, deep_stem=False):
    """torchvision names, a rate for each block; the deep stem is mmsegmentation's."""
    if deep_stem:
        for index, (out, stride) in enumerate(((32, 2), (32, 1), (64, 1))):
            x = net.conv_norm(f"{prefix}stem.{3 * index}", f"{prefix}stem.{3 * index + 1}", x, out, 3, stride=stride)
    else:
        x = net.conv_norm(f"{prefix}conv1", f"{prefix}bn1", x, 64, 7, stride=2)
    x = functional.max_pool2d(x, 3, 2, 1)
    outputs = []
    for stage, (stride, each) in enumerate([(1, [1] * 3), *grid_rates(depth, rates)]):
        mid = 64 * 2**stage
        for block, rate in enumerate(each):
            name, step = f"{prefix}layer{stage + 1}.{block}", stride if block == 0 else 1
            y = net.conv_norm(f"{name}.conv1", f"{name}.bn1", x, mid)
            y = net.conv_norm(f"{name}.conv2", f"{name}.bn2", y, mid, 3, stride=step, rate=rate)
            y = net.conv_norm(f"{name}.conv3", f"{name}.bn3", y, 4 * mid, act=None)
            if block == 0:
                down = f"{name}.downsample"
                x = net.conv_norm(f"{down}.0", f"{down}.1", x, 4 * mid, stride=step, act=None)
            x = functional.relu(x + y)
        outputs.append(x)
    return outputs[0], outputs[2], outputs[3]


#: arXiv 1801.04381, table 2: expansion, channels, blocks, stride.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(net, x, block, rates):
    """Blocks of MobileNetV2 at output stride 8; `rates` gives (first, others) of the last four stages."""
    outputs, index = [], 0
    for stage, (expansion, out, count, stride) in enumerate(MOBILENET_V2):
        first, others = (1, 1) if stage < 3 else rates[stage - 3]
        for number in range(count):
            index += 1
            step = stride if number == 0 and stage < 3 else 1
            rate = others if number else first
            y = block(net, x, (stage, number, index), (expansion * x.shape[1], out), stride=step, rate=rate)
            x = x + y if step == 1 and x.shape[1] == out else y
        outputs.append(x)
    return outputs


def padded_block(names):
    """The block of VainF and jfzhang95, which pads before it expands; `names` gives those of its layers."""

    def block(net, x, place, widths, *, stride, rate):
        hidden, out = widths
        layers = names(place, 2 if hidden == x.shape[1] else 3)
        x = functional.pad(x, [rate] * 4)
        if hidden != x.shape[1]:
            x = net.conv_norm(*next(layers), x, hidden, act=functional.relu6)
        name, norm = next(layers)
        weight = net._weight(f"{name}.weight", (hidden, 1, 3, 3), fan_in=9)
        x = functional.relu6(net.norm(norm, functional.conv2d(x, weight, None, stride, 0, rate, hidden)))
        return net.conv_norm(*next(layers), x, out, act=None)

    return block


def vainf_layers(place, count):
    """torchvision's, in two parts: the low-level features end with the second stage."""
    part = "low" if place[2] <= 3 else "high"
    name = f"backbone.{part}_level_features.{place[2]}.conv"
    for layer in range(count - 1):
        yield f"{name}.{layer}.0", f"{name}.{layer}.1"
    yield f"{name}.{count - 1}", f"{name}.{count}"


def jfzhang95_layers(place, count):
    for layer in range(count):
        name = f"backbone.features.{place[2]}.conv"
        yield f"{name}.{3 * layer}", f"{name}.{3 * layer + 1}"


def vainf_resnet(depth):
    def backbone(net, x):
        low_level, _, features = grid_resnet(net, x, depth, "backbone.", ((2, [1]), (2, [1]), (1, [1, 2])))
        return low_level, features

    return backbone


def vainf_mobilenet(net, x):
    name = "backbone.low_level_features.0"
    weight = net._weight(f"{name}.0.weight", (32, 3, 3, 3), fan_in=27)
    # Its first convolution is not padded.
    x = functional.relu6(net.norm(f"{name}.1", functional.conv2d(x, weight, None, 2)))
    outputs = mobilenet_v2(net, x, padded_block(vainf_layers), ((1, 2), (2, 2), (2, 4), (4, 4)))
    return outputs[1], outputs[-1]


def vainf_v3(backbone, rates):
    def forward(net, x):
        _, features = backbone(net, x)
        name = "classifier.classifier"
        y = net.conv_norm(f"{name}.1", f"{name}.2", aspp(net, f"{name}.0.", features, rates), 256, 3)
        return net.conv(f"{name}.4", y, 21, bias=True)

    return forward


def vainf_v3plus(backbone, rates):
    def forward(net, x):
        low_level, features = backbone(net, x)
        skip = net.conv_norm("classifier.project.0", "classifier.project.1", low_level, 48)
        y = resize(aspp(net, "classifier.aspp.", features, rates), skip)
        name = "classifier.classifier"
        y = net.conv_norm(f"{name}.0", f"{name}.1", torch.cat([skip, y], 1), 256, 3)
        return net.conv(f"{name}.3", y, 21, bias=True)

    return forward


def jfzhang95_resnet(net, x):
    low_level, _, features = grid_resnet(net, x, 101, "backbone.", ((2, [1]), (2, [1]), (1, [2, 4, 8])))
    return low_level, features


def jfzhang95_mobilenet(net, x):
    name = "backbone.features.0"
    x = net.conv_norm(f"{name}.0", f"{name}.1", x, 32, 3, stride=2, act=functional.relu6)
    outputs = mobilenet_v2(net, x, padded_block(jfzhang95_layers), ((1, 1), (2, 2), (2, 2), (4, 4)))
    # Its slices of the features are modules of their own, so that every weight is saved under two names.
    for key in [key for key in net.state if key.startswith("backbone.features.")]:
        part = "low" if int(key.split(".")[2]) <= 3 else "high"
        net.state[key.replace(".features.", f".{part}_level_features.")] = net.state[key]
    return outputs[1], outputs[-1]


def jfzhang95_separable(net, name, norm, x, out, *, stride=1, rate=1):
    depthwise = {"stride": stride, "rate": rate, "groups": x.shape[1]}
    x = net.conv_norm(f"{name}.conv1", f"{name}.bn", x, x.shape[1], 3, act=None, **depthwise)
    return net.conv_norm(f"{name}.pointwise", norm, x, out, act=None)


def jfzhang95_xception(net, x):
    """Output stride 8. Its ReLUs work in place, so that shortcuts see them too."""
    x = net.conv_norm("backbone.conv1", "backbone.bn1", x, 32, 3, stride=2)
    x = net.conv_norm("backbone.conv2", "backbone.bn2", x, 64, 3)
    plan = [(128, 128, 128, 2, 1), (256, 256, 256, 2, 1), (728, 728, 728, 1, 1)]
    plan += [(728, 728, 728, 1, 2)] * 16
    for number, (*widths, stride, rate) in enumerate([*plan, (728, 1024, 1024, 1, 2)], start=1):
        name, first = f"backbone.block{number}", 0 if number <= 2 else 1
        x = x.relu()
        if number == 2:
            low_level = x
        y = x
        for layer, width in enumerate(widths):
            position = first + 3 * layer
            # The last block's third convolution is not dilated.
            step, each = (stride, 1 if number == 20 else rate) if layer == 2 else (1, rate)
            y = jfzhang95_separable(
                net, f"{name}.rep.{position}", f"{name}.rep.{position + 1}", y.relu(), width, stride=step, rate=each
            )
        if stride != 1 or x.shape[1] != widths[2]:
            x = net.conv_norm(f"{name}.skip", f"{name}.skipbn", x, widths[2], stride=stride, act=None)
        x = x + y
    for number, width in ((3, 1536), (4, 1536), (5, 2048)):
        x = jfzhang95_separable(net, f"backbone.conv{number}", f"backbone.bn{number}", x.relu(), width, rate=4)
    return low_level, x.relu()


def jfzhang95(backbone, rates):
    def forward(net, x):
        low_level, x = backbone(net, x)
        branches = [net.conv_norm("aspp.aspp1.atrous_conv", "aspp.aspp1.bn", x, 256)]
        for index, rate in enumerate(rates, start=2):
            branches.append(
                net.conv_norm(f"aspp.aspp{index}.atrous_conv", f"aspp.aspp{index}.bn", x, 256, 3, rate=rate)
            )
        name = "aspp.global_avg_pool"
        pooled = net.conv_norm(f"{name}.1", f"{name}.2", x.mean((2, 3), keepdim=True), 256)
        branches.append(resize(pooled, x, align_corners=True))
        x = net.conv_norm("aspp.conv1", "aspp.bn1", torch.cat(branches, 1), 256)
        skip = net.conv_norm("decoder.conv1", "decoder.bn1", low_level, 48)
        x = torch.cat([resize(x, skip, align_corners=True), skip], 1)
        x = net.conv_norm("decoder.last_conv.0", "decoder.last_conv.1", x, 256, 3)
        x = net.conv_norm("decoder.last_conv.4", "decoder.last_conv.5", x, 256, 3)
        return net.conv("decoder.last_conv.8", x, 21, bias=True)

    return forward


def kazuto1011_grid(net, x):
    """Multi-grid ResNet-101 at output stride 16 and the pyramid."""

    def conv_norm(name, x, *args, **kwargs):
        return net.conv_norm(f"base.{name}.conv", f"base.{name}.bn", x, *args, **kwargs)

    x = conv_norm("layer1.conv1", x, 64, 7, stride=2)
    x = functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    rates = ([1] * 3, [1] * 4, [1] * 23, [2, 4, 8])
    for stage, (stride, each) in enumerate(zip((1, 2, 2, 1), rates, strict=True)):
        mid = 64 * 2**stage
        for block, rate in enumerate(each):
            name, step = f"layer{stage + 2}.block{block + 1}", stride if block == 0 else 1
            y = conv_norm(f"{name}.conv3x3", conv_norm(f"{name}.reduce", x, mid, stride=step), mid, 3, rate=rate)
            y = conv_norm(f"{name}.increase", y, 4 * mid, act=None)
            x = conv_norm(f"{name}.shortcut", x, 4 * mid, stride=step, act=None) if block == 0 else x
            x = functional.relu(x + y)
        if stage == 0:
            low_level = x
    branches = [conv_norm("aspp.stages.c0", x, 256)]
    branches += [conv_norm(f"aspp.stages.c{i}", x, 256, 3, rate=6 * i) for i in (1, 2, 3)]
    pooled = conv_norm("aspp.stages.imagepool.conv", x.mean((2, 3), keepdim=True), 256)
    return low_level, conv_norm("fc1", torch.cat([*branches, resize(pooled, x)], 1), 256)


def kazuto1011_v3(net, x):
    return net.conv("base.fc2", kazuto1011_grid(net, x)[1], 21, bias=True)


def kazuto1011_v3plus(net, x):
    low_level, x = kazuto1011_grid(net, x)
    skip = net.conv_norm("base.reduce.conv", "base.reduce.bn", low_level, 48)
    x = torch.cat([resize(x, skip), skip], 1)
    for index in (1, 2):
        x = net.conv_norm(f"base.fc2.conv{index}.conv", f"base.fc2.conv{index}.bn", x, 256, 3)
    return net.conv("base.fc2.conv3", x, 21, bias=True)


def mmseg_resnet(depth, output_stride):
    rates = ((2, [1]), (1, [1, 2]), (1, [2, 4])) if output_stride == 8 else ((2, [1]), (2, [1]), (1, [1, 2, 4]))

    def backbone(net, x):
        return grid_resnet(net, x, depth, "backbone.", rates, deep_stem=True)

    return backbone


def mmseg_mobilenet(net, x):
    def block(net, x, place, widths, *, stride, rate):
        hidden, out = widths
        layers = iter(f"backbone.layer{place[0] + 1}.{place[1]}.conv.{layer}" for layer in range(3))
        act = functional.relu6
        if hidden != x.shape[1]:
            name = next(layers)
            x = net.conv_norm(f"{name}.conv", f"{name}.bn", x, hidden, act=act)
        name = next(layers)
        x = net.conv_norm(f"{name}.conv", f"{name}.bn", x, hidden, 3, stride=stride, rate=rate, groups=hidden, act=act)
        name = next(layers)
        return net.conv_norm(f"{name}.conv", f"{name}.bn", x, out, act=None)

    x = net.conv_norm("backbone.conv1.conv", "backbone.conv1.bn", x, 32, 3, stride=2, act=functional.relu6)
    outputs = mobilenet_v2(net, x, block, ((2, 1), (2, 1), (4, 1), (4, 1)))
    return outputs[1], outputs[4], outputs[-1]


def mmseg(backbone, rates, *, plus):
    def conv_norm(net, name, x, *args, **kwargs):
        return net.conv_norm(f"decode_head.{name}.conv", f"decode_head.{name}.bn", x, *args, **kwargs)

    def separable_module(net, name, x, rate=1):
        y = conv_norm(net, f"{name}.depthwise_conv", x, x.shape[1], 3, rate=rate, groups=x.shape[1])
        return conv_norm(net, f"{name}.pointwise_conv", y, 512)

    def forward(net, x):
        low_level, auxiliary, x = backbone(net, x)
        branches = [resize(conv_norm(net, "image_pool.1", x.mean((2, 3), keepdim=True), 512), x)]
        branches.append(conv_norm(net, "aspp_modules.0", x, 512))
        for index, rate in enumerate(rates, start=1):
            name = f"aspp_modules.{index}"
            branches.append(
                separable_module(net, name, x, rate) if plus else conv_norm(net, name, x, 512, 3, rate=rate)
            )
        x = conv_norm(net, "bottleneck", torch.cat(branches, 1), 512, 3)
        if plus:
            skip = conv_norm(net, "c1_bottleneck", low_level, 48)
            x = torch.cat([resize(x, skip), skip], 1)
            for index in (0, 1):
                x = separable_module(net, f"sep_bottleneck.{index}", x)
        y = net.conv_norm("auxiliary_head.convs.0.conv", "auxiliary_head.convs.0.bn", auxiliary, 256, 3)
        net.conv("auxiliary_head.conv_seg", y, 21, bias=True)
        return net.conv("decode_head.conv_seg", x, 21, bias=True)

    return forward


def hf_mobilenet(net, x):
    """Output stride 8, padded as TensorFlow does where it strides."""
    eps = 1e-3

    def layer(name, x, out, kernel=1, *, stride=1, act=functional.relu6, eps=eps, **kwargs):
        if stride == 2:
            # Rows and columns that the last window lacks go after the map, half of them rounded down before it.
            (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in (1 + size % 2 for size in x.shape[2:]))
            x = functional.pad(x, (left, right, top, bottom))
            groups = kwargs.get("groups", 1)
            weight = net._weight(f"{name}.convolution.weight", (out, x.shape[1] // groups, 3, 3), fan_in=9)
            y = net.norm(f"{name}.normalization", functional.conv2d(x, weight, None, 2, 0, 1, groups), eps)
            return act(y)
        return net.conv_norm(f"{name}.convolution", f"{name}.normalization", x, out, kernel, act=act, eps=eps, **kwargs)

    def block(_, x, place, widths, *, stride, rate):
        hidden, out = widths
        name = "mobilenet_v2.conv_stem" if place[2] == 1 else f"mobilenet_v2.layer.{place[2] - 2}"
        if hidden != x.shape[1]:
            x = layer(f"{name}.expand_1x1", x, hidden)
        x = layer(f"{name}.conv_3x3", x, hidden, 3, stride=stride, rate=rate, groups=hidden)
        return layer(f"{name}.reduce_1x1", x, out, act=None)

    x = layer("mobilenet_v2.conv_stem.first_conv", x, 32, 3, stride=2)
    x = mobilenet_v2(net, x, block, ((1, 2), (2, 2), (2, 4), (4, 4)))[-1]
    layer("mobilenet_v2.conv_1x1", x, 1280)
    relu, head = functional.relu, "segmentation_head"
    pooled = layer(f"{head}.conv_pool", x.mean((2, 3), keepdim=True), 256, act=relu, eps=1e-5)
    x = torch.cat([resize(pooled, x), layer(f"{head}.conv_aspp", x, 256, act=relu, eps=1e-5)], 1)
    x = layer(f"{head}.conv_projection", x, 256, act=relu, eps=1e-5)
    return net.conv(f"{head}.classifier.convolution", x, 21, bias=True)


def hf_mobilevit(channels, hidden, expansion):
    """Output stride 16; its maps are taken apart into the four places of 2×2 patches."""

    def layer(net, name, x, out, kernel=1, *, act=functional.silu, **kwargs):
        return net.conv_norm(f"{name}.convolution", f"{name}.normalization", x, out, kernel, act=act, **kwargs)

    def residual(net, name, x, out, stride):
        wide = x.shape[1] * expansion
        y = layer(net, f"{name}.expand_1x1", x, wide)
        y = layer(net, f"{name}.conv_3x3", y, wide, 3, stride=stride, groups=wide)
        y = layer(net, f"{name}.reduce_1x1", y, out, act=None)
        return x + y if stride == 1 and x.shape[1] == out else y

    def linear(net, name, x, out):
        weight = net._weight(f"{name}.weight", (out, x.shape[-1]), fan_in=x.shape[-1])
        return functional.linear(x, weight, net._weight(f"{name}.bias", (out,)))

    def norm(net, name, x):
        shape = x.shape[-1:]
        return functional.layer_norm(
            x, shape, net._weight(f"{name}.weight", shape, low=0.5), net._weight(f"{name}.bias", shape)
        )

    def transformer(net, name, x):
        width = x.shape[-1]
        y = norm(net, f"{name}.layernorm_before", x)
        parts = (linear(net, f"{name}.attention.attention.{part}", y, width) for part in ("query", "key", "value"))
        heads = [part.unflatten(-1, (4, -1)).transpose(-2, -3) for part in parts]
        y = functional.scaled_dot_product_attention(*heads).transpose(-2, -3).flatten(-2)
        x = x + linear(net, f"{name}.attention.output.dense", y, width)
        y = linear(net, f"{name}.intermediate.dense", norm(net, f"{name}.layernorm_after", x), 2 * width)
        return x + linear(net, f"{name}.output.dense", functional.silu(y), width)

    def block(net, name, x, out, width, depth, stride):
        x = residual(net, f"{name}.downsampling_layer", x, out, stride)
        y = net.conv(f"{name}.conv_1x1.convolution", layer(net, f"{name}.conv_kxk", x, out, 3), width)
        size = y.shape[2:]
        even = [length + length % 2 for length in size]
        if list(size) != even:
            y = functional.interpolate(y, size=even, mode="bilinear", align_corners=False)
        # [N, C, H, W] → [N, 4 places, patches, C], by slices.
        places = [y[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        tokens = torch.stack([place.flatten(2).transpose(1, 2) for place in places], 1)
        for index in range(depth):
            tokens = transformer(net, f"{name}.transformer.layer.{index}", tokens)
        tokens = norm(net, f"{name}.layernorm", tokens).transpose(2, 3).unflatten(3, places[0].shape[2:])
        y = functional.pixel_shuffle(tokens.transpose(1, 2).flatten(1, 2), 2)
        if list(size) != even:
            y = functional.interpolate(y, size=size, mode="bilinear", align_corners=False)
        y = layer(net, f"{name}.conv_projection", y, out)
        return layer(net, f"{name}.fusion", torch.cat([x, y], 1), out, 3)

    def forward(net, x):
        x = layer(net, "mobilevit.conv_stem", x, channels[0], 3, stride=2)
        stages = "mobilevit.encoder.layer"
        x = residual(net, f"{stages}.0.layer.0", x, channels[1], 1)
        for index in range(3):
            x = residual(net, f"{stages}.1.layer.{index}", x, channels[2], 1 if index else 2)
        for index, (width, depth, stride) in enumerate(zip(hidden, (2, 4, 3), (2, 2, 1), strict=True)):
            x = block(net, f"{stages}.{index + 2}", x, channels[index + 3], width, depth, stride)
        head, relu = "segmentation_head", functional.relu
        branches = [layer(net, f"{head}.aspp.convs.0", x, 256, act=relu)]
        for index, rate in enumerate(HALF_RATES, start=1):
            branches.append(layer(net, f"{head}.aspp.convs.{index}", x, 256, 3, rate=rate, act=relu))
        pooled = layer(net, f"{head}.aspp.convs.4.conv_1x1", x.mean((2, 3), keepdim=True), 256, act=relu)
        x = layer(net, f"{head}.aspp.project", torch.cat([*branches, resize(pooled, x)], 1), 256, act=relu)
        return net.conv(f"{head}.classifier.convolution", x, 21, bias=True)

    return forward


HALF_RATES, FULL_RATES = (6, 12, 18), (12, 24, 36)

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
    "kazuto1011 v3 resnet101 os16": ("deeplabv3_resnet101_kazuto1011", 16, kazuto1011_v3),
    "kazuto1011 v3+ resnet101 os16": ("deeplabv3plus_resnet101_kazuto1011", 16, kazuto1011_v3plus),
    "vainf v3 resnet50 os16": ("deeplabv3_resnet50", 16, vainf_v3(vainf_resnet(50), HALF_RATES)),
    "vainf v3 mobilenet_v2 os8": ("deeplabv3_mobilenet_v2_vainf", 8, vainf_v3(vainf_mobilenet, FULL_RATES)),
    "vainf v3+ resnet50 os16": ("deeplabv3plus_resnet50_vainf", 16, vainf_v3plus(vainf_resnet(50), HALF_RATES)),
    "vainf v3+ resnet101 os16": ("deeplabv3plus_resnet101_vainf", 16, vainf_v3plus(vainf_resnet(101), HALF_RATES)),
    "vainf v3+ mobilenet_v2 os8": (
        "deeplabv3plus_mobilenet_v2_vainf",
        8,
        vainf_v3plus(vainf_mobilenet, FULL_RATES),
    ),
    "jfzhang95 v3+ resnet101 os16": ("deeplabv3plus_resnet101_jfzhang95", 16, jfzhang95(jfzhang95_resnet, HALF_RATES)),
    "jfzhang95 v3+ xception os8": (
        "deeplabv3plus_xception65_jfzhang95",
        8,
        jfzhang95(jfzhang95_xception, FULL_RATES),
    ),
    "jfzhang95 v3+ mobilenet_v2 os8": (
        "deeplabv3plus_mobilenet_v2_jfzhang95",
        8,
        jfzhang95(jfzhang95_mobilenet, FULL_RATES),
    ),
    "mmseg v3 resnet50 d8": ("deeplabv3_resnet50_mmseg", 8, mmseg(mmseg_resnet(50, 8), FULL_RATES, plus=False)),
    "mmseg v3 resnet101 d16": ("deeplabv3_resnet101_mmseg", 16, mmseg(mmseg_resnet(101, 16), HALF_RATES, plus=False)),
    "mmseg v3+ resnet50 d8": ("deeplabv3plus_resnet50_mmseg", 8, mmseg(mmseg_resnet(50, 8), FULL_RATES, plus=True)),
    "mmseg v3+ resnet101 d16": (
        "deeplabv3plus_resnet101_mmseg",
        16,
        mmseg(mmseg_resnet(101, 16), HALF_RATES, plus=True),
    ),
    "mmseg v3 mobilenet_v2 d8": ("deeplabv3_mobilenet_v2_mmseg", 8, mmseg(mmseg_mobilenet, FULL_RATES, plus=False)),
    "mmseg v3+ mobilenet_v2 d8": (
        "deeplabv3plus_mobilenet_v2_mmseg",
        8,
        mmseg(mmseg_mobilenet, FULL_RATES, plus=True),
    ),
    "hf v3 mobilenet_v2 os8": ("deeplabv3_mobilenet_v2_hf", 8, hf_mobilenet),
    "hf v3 mobilevit_small os16": (
        "deeplabv3_mobilevit_small_hf",
        16,
        hf_mobilevit((16, 32, 64, 96, 128, 160), (144, 192, 240), 4),
    ),
    "hf v3 mobilevit_x_small os16": (
        "deeplabv3_mobilevit_x_small_hf",
        16,
        hf_mobilevit((16, 32, 48, 64, 80, 96), (96, 120, 144), 4),
    ),
    "hf v3 mobilevit_xx_small os16": (
        "deeplabv3_mobilevit_xx_small_hf",
        16,
        hf_mobilevit((16, 16, 24, 48, 64, 80), (64, 80, 96), 2),
    ),
}
