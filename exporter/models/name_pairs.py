"""Pairs of module names, here and in foreign state dicts, of the parts that several repositories name alike."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .deeplab_v3 import ASPP
from .inverted_residual import InvertedResidual, SqueezeExcite
from .layers import ConvBNAct, ImagePooling, SeparableConv
from .mobilenet import MobileNetV2, MobileNetV3Large
from .resnet import Bottleneck, ResNet

#: (name of a leaf module here, its foreign name)
Pair = tuple[str, str]


def resnet(backbone: ResNet, prefix: str) -> list[Pair]:
    """Pairs of torchvision's names, and of mmsegmentation's for a deep stem."""
    if backbone.style.deep_stem:
        pairs = [
            pair
            for index in range(3)
            for pair in conv_bn(f"backbone.stem.{index}", f"{prefix}stem.{3 * index}", f"{prefix}stem.{3 * index + 1}")
        ]
    else:
        pairs = conv_bn("backbone.stem.0", f"{prefix}conv1", f"{prefix}bn1")
    for here, stage, index, block in bottlenecks(backbone):
        there = f"{prefix}layer{stage}.{index}"
        for number, layer in enumerate(("reduce", "spatial", "expand"), start=1):
            pairs += conv_bn(f"{here}.{layer}", f"{there}.conv{number}", f"{there}.bn{number}")
        if isinstance(block.shortcut, ConvBNAct):
            pairs += conv_bn(f"{here}.shortcut", f"{there}.downsample.0", f"{there}.downsample.1")
    return pairs


def bottlenecks(backbone: ResNet) -> Iterator[tuple[str, int, int, Bottleneck]]:
    """(name here, stage counted from 1, index in the stage, block) of every bottleneck."""
    for name, block in backbone.named_modules(prefix="backbone"):
        if isinstance(block, Bottleneck):
            _, level, *indices = name.split(".")
            stage = 1 if level == "low_level" else int(indices[0]) + 2
            yield name, stage, int(indices[-1]), block


def mobilenet_v2(backbone: MobileNetV2, prefix: str, high_prefix: str | None = None) -> list[Pair]:
    """Pairs of torchvision's names; blocks past the low-level features begin with `high_prefix`, if there is one."""
    pairs = conv_bn("backbone.stem", f"{prefix}0.0", f"{prefix}0.1")
    blocks = list(inverted_residuals(backbone))
    for index, (here, block) in enumerate(blocks, start=1):
        if high_prefix is not None and here.startswith("backbone.high_level."):
            prefix = high_prefix
        there = f"{prefix}{index}.conv"
        last = len(block.layers) - 1
        for layer in range(last):
            pairs += conv_bn(f"{here}.layers.{layer}", f"{there}.{layer}.0", f"{there}.{layer}.1")
        # The projection has no activation, and no Sequential of its own there.
        pairs += conv_bn(f"{here}.layers.{last}", f"{there}.{last}", f"{there}.{last + 1}")
    if backbone.style.last_convolution:
        pairs += _last_convolution(backbone.high_level, f"{prefix}{len(blocks) + 1}")
    return pairs


def mobilenet_v3(backbone: MobileNetV3Large, prefix: str) -> list[Pair]:
    """Pairs of torchvision's names."""
    pairs = conv_bn("backbone.stem", f"{prefix}0.0", f"{prefix}0.1")
    blocks = list(inverted_residuals(backbone))
    for index, (here, block) in enumerate(blocks, start=1):
        for number, layer in enumerate(block.layers):
            name, there = f"{here}.layers.{number}", f"{prefix}{index}.block.{number}"
            if isinstance(layer, SqueezeExcite):
                pairs += [(f"{name}.gate.1", f"{there}.fc1"), (f"{name}.gate.3", f"{there}.fc2")]
            else:
                pairs += conv_bn(name, f"{there}.0", f"{there}.1")
    return pairs + _last_convolution(backbone.high_level, f"{prefix}{len(blocks) + 1}")


def inverted_residuals(backbone: nn.Module) -> Iterator[tuple[str, InvertedResidual]]:
    """(name here, block) of every inverted residual."""
    for name, block in backbone.named_modules(prefix="backbone"):
        if isinstance(block, InvertedResidual):
            yield name, block


def _last_convolution(high_level: nn.Sequential, there: str) -> list[Pair]:
    return conv_bn(f"backbone.high_level.{len(high_level) - 1}", f"{there}.0", f"{there}.1")


def aspp(pyramid: ASPP, prefix: str) -> list[Pair]:
    """Pairs of torchvision's names."""
    pairs: list[Pair] = []
    for index, branch in enumerate(pyramid.branches):
        here, there = f"aspp.branches.{index}", f"{prefix}convs.{index}"
        if isinstance(branch, SeparableConv):
            pairs += separable(here, f"{there}.0", f"{there}.1")
        elif isinstance(branch, ImagePooling):
            pairs += conv_bn(f"{here}.1", f"{there}.1", f"{there}.2")
        else:
            pairs += conv_bn(here, f"{there}.0", f"{there}.1")
    return pairs + conv_bn("aspp.project.0", f"{prefix}project.0", f"{prefix}project.1")


def separable(here: str, convolutions: str, norm: str) -> list[Pair]:
    """Pairs of a `SeparableConv` without inner normalization, whose convolutions share a foreign Sequential."""
    return [(f"{here}.0", f"{convolutions}.0"), *conv_bn(f"{here}.1", f"{convolutions}.1", norm)]


def conv_bn(here: str, convolution: str, norm: str) -> list[Pair]:
    """Pairs of a `ConvBNAct`."""
    return [(f"{here}.0", convolution), (f"{here}.1", norm)]


def tagged(here: str, there: str, tags: tuple[str, str] = ("conv", "bn")) -> list[Pair]:
    """Pairs of a `ConvBNAct` that is a module of two named parts there."""
    return conv_bn(here, f"{there}.{tags[0]}", f"{there}.{tags[1]}")
