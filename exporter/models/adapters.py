"""Key names of the reference networks in foreign state dicts.

Nothing is guessed from shapes: every leaf module of a network is paired with its foreign name. Names follow
torchvision (`models.segmentation`), segmentation-models-pytorch (`DeepLabV3`, `DeepLabV3Plus`) and
kazuto1011/deeplab-pytorch (`DeepLabV2_ResNet101_MSC`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from torch import nn

from ..options import Source
from .deeplab_v2 import DeepLabV2
from .deeplab_v3 import ASPP, DeepLabV3
from .deeplab_v3plus import SMP_DECODER, DeepLabV3Plus
from .inverted_residual import InvertedResidual, SqueezeExcite
from .layers import ConvBNAct, ImagePooling, SeparableConv
from .mobilenet import MobileNetV2, MobileNetV3Large
from .resnet import Bottleneck, ResNet

#: (name of a leaf module here, its foreign name)
_Pair = tuple[str, str]

#: Weight of the last convolution, whose output channels are the classes.
CLASSIFIER_WEIGHTS: Final[dict[Source, tuple[str, ...]]] = {
    "torchvision": ("classifier.4.weight",),
    "smp": ("segmentation_head.0.weight",),
    "kazuto1011": ("base.aspp.c0.weight", "aspp.c0.weight"),
    "atrous": ("classifier.weight", "pyramid.branches.0.weight", "pyramid.branches.0.6.weight"),
}

#: Prefixes of keys that only foreign training code uses, and the reason to ignore them.
TRAINING_HEADS: Final[dict[Source, tuple[str, str]]] = {
    "torchvision": ("aux_classifier.", "auxiliary head, used only in training"),
    "smp": ("classification_head.", "image classification head, not used for segmentation"),
}


def detect_source(keys: Collection[str]) -> Source:
    """Detect the library whose names `keys` are, by its classifier; `atrous` if there is no other."""
    for source, weights in CLASSIFIER_WEIGHTS.items():
        if any(weight in keys for weight in weights):
            return source
    return "atrous"


def foreign_names(model: nn.Module, source: Source, keys: Collection[str]) -> dict[str, str] | None:
    """Pair every leaf module of `model` that has weights with its name in a foreign state dict.

    Args:
        model: any module for `atrous`, a reference network otherwise.
        source: library of the foreign names.
        keys: keys of the state dict, which determine the variant of the names.

    Returns:
        Module name here → foreign module name; None if `model` computes something else than the source's.
    """
    pairs: list[_Pair] | None
    if source == "atrous":
        pairs = [(name, name) for name, _ in model.named_modules()]
    elif source == "torchvision":
        pairs = _torchvision(model)
    elif source == "smp":
        pairs = _smp(model)
    else:
        # Published weights are saved with the multi-scale wrapper; others may not be.
        pairs = _kazuto1011(model, "base." if any(key.startswith("base.") for key in keys) else "")
    return None if pairs is None else dict(pairs)


def _torchvision(model: nn.Module) -> list[_Pair] | None:
    if not isinstance(model, DeepLabV3):
        return None
    if isinstance(model.backbone, ResNet) and model.backbone.rule == "graded":
        backbone = _resnet(model.backbone, "backbone.")
    elif isinstance(model.backbone, MobileNetV3Large):
        backbone = _mobilenet_v3(model.backbone, "backbone.")
    else:
        return None
    return [
        *backbone,
        *_aspp(model.aspp, "classifier.0."),
        *_conv_bn("head", "classifier.1", "classifier.2"),
        ("classifier", "classifier.4"),
    ]


def _smp(model: nn.Module) -> list[_Pair] | None:
    head: list[_Pair]
    if isinstance(model, DeepLabV3):
        head = [*_aspp(model.aspp, "decoder.aspp."), *_conv_bn("head", "decoder.conv", "decoder.bn")]
    elif isinstance(model, DeepLabV3Plus) and model.style == SMP_DECODER:
        head = [
            *_aspp(model.aspp, "decoder.aspp.0."),
            *_separable("refine", "decoder.aspp.1", "decoder.aspp.2"),
            *_conv_bn("low_level", "decoder.block1.0", "decoder.block1.1"),
            *_separable("decoder.0", "decoder.block2.0", "decoder.block2.1"),
        ]
    else:
        return None
    if isinstance(model.backbone, ResNet) and model.backbone.rule == "uniform":
        backbone = _resnet(model.backbone, "encoder.")
    elif isinstance(model.backbone, MobileNetV2):
        backbone = _mobilenet_v2(model.backbone, "encoder.features.")
    else:
        return None
    return [*backbone, *head, ("classifier", "segmentation_head.0")]


def _kazuto1011(model: nn.Module, prefix: str) -> list[_Pair] | None:
    if not isinstance(model, DeepLabV2) or not isinstance(model.backbone, ResNet):
        return None
    pairs = _conv_bn("backbone.stem.0", f"{prefix}layer1.conv1.conv", f"{prefix}layer1.conv1.bn")
    for here, stage, index, block in _bottlenecks(model.backbone):
        there = f"{prefix}layer{stage + 1}.block{index + 1}"
        pairs += _conv_bn(f"{here}.reduce", f"{there}.reduce.conv", f"{there}.reduce.bn")
        pairs += _conv_bn(f"{here}.spatial", f"{there}.conv3x3.conv", f"{there}.conv3x3.bn")
        pairs += _conv_bn(f"{here}.expand", f"{there}.increase.conv", f"{there}.increase.bn")
        if isinstance(block.shortcut, ConvBNAct):
            pairs += _conv_bn(f"{here}.shortcut", f"{there}.shortcut.conv", f"{there}.shortcut.bn")
    pairs += [(f"pyramid.branches.{i}", f"{prefix}aspp.c{i}") for i in range(len(model.pyramid.branches))]
    return pairs


def _resnet(backbone: ResNet, prefix: str) -> list[_Pair]:
    pairs = _conv_bn("backbone.stem.0", f"{prefix}conv1", f"{prefix}bn1")
    for here, stage, index, block in _bottlenecks(backbone):
        there = f"{prefix}layer{stage}.{index}"
        for number, layer in enumerate(("reduce", "spatial", "expand"), start=1):
            pairs += _conv_bn(f"{here}.{layer}", f"{there}.conv{number}", f"{there}.bn{number}")
        if isinstance(block.shortcut, ConvBNAct):
            pairs += _conv_bn(f"{here}.shortcut", f"{there}.downsample.0", f"{there}.downsample.1")
    return pairs


def _bottlenecks(backbone: ResNet) -> Iterator[tuple[str, int, int, Bottleneck]]:
    """(name here, stage counted from 1, index in the stage, block) of every bottleneck."""
    for name, block in backbone.named_modules(prefix="backbone"):
        if isinstance(block, Bottleneck):
            _, level, *indices = name.split(".")
            stage = 1 if level == "low_level" else int(indices[0]) + 2
            yield name, stage, int(indices[-1]), block


def _mobilenet_v2(backbone: MobileNetV2, prefix: str) -> list[_Pair]:
    pairs = _conv_bn("backbone.stem", f"{prefix}0.0", f"{prefix}0.1")
    blocks = list(_inverted_residuals(backbone))
    for index, (here, block) in enumerate(blocks, start=1):
        there = f"{prefix}{index}.conv"
        last = len(block.layers) - 1
        for layer in range(last):
            pairs += _conv_bn(f"{here}.layers.{layer}", f"{there}.{layer}.0", f"{there}.{layer}.1")
        # The projection has no activation, and no Sequential of its own there.
        pairs += _conv_bn(f"{here}.layers.{last}", f"{there}.{last}", f"{there}.{last + 1}")
    return pairs + _last_convolution(backbone.high_level, f"{prefix}{len(blocks) + 1}")


def _mobilenet_v3(backbone: MobileNetV3Large, prefix: str) -> list[_Pair]:
    pairs = _conv_bn("backbone.stem", f"{prefix}0.0", f"{prefix}0.1")
    blocks = list(_inverted_residuals(backbone))
    for index, (here, block) in enumerate(blocks, start=1):
        for number, layer in enumerate(block.layers):
            name, there = f"{here}.layers.{number}", f"{prefix}{index}.block.{number}"
            if isinstance(layer, SqueezeExcite):
                pairs += [(f"{name}.gate.1", f"{there}.fc1"), (f"{name}.gate.3", f"{there}.fc2")]
            else:
                pairs += _conv_bn(name, f"{there}.0", f"{there}.1")
    return pairs + _last_convolution(backbone.high_level, f"{prefix}{len(blocks) + 1}")


def _inverted_residuals(backbone: nn.Module) -> Iterator[tuple[str, InvertedResidual]]:
    for name, block in backbone.named_modules(prefix="backbone"):
        if isinstance(block, InvertedResidual):
            yield name, block


def _last_convolution(high_level: nn.Sequential, there: str) -> list[_Pair]:
    return _conv_bn(f"backbone.high_level.{len(high_level) - 1}", f"{there}.0", f"{there}.1")


def _aspp(aspp: ASPP, prefix: str) -> list[_Pair]:
    pairs: list[_Pair] = []
    for index, branch in enumerate(aspp.branches):
        here, there = f"aspp.branches.{index}", f"{prefix}convs.{index}"
        if isinstance(branch, SeparableConv):
            pairs += _separable(here, f"{there}.0", f"{there}.1")
        elif isinstance(branch, ImagePooling):
            pairs += _conv_bn(f"{here}.1", f"{there}.1", f"{there}.2")
        else:
            pairs += _conv_bn(here, f"{there}.0", f"{there}.1")
    return pairs + _conv_bn("aspp.project.0", f"{prefix}project.0", f"{prefix}project.1")


def _separable(here: str, convolutions: str, norm: str) -> list[_Pair]:
    """Pairs of a `SeparableConv` without inner normalization, whose convolutions share a foreign Sequential."""
    return [(f"{here}.0", f"{convolutions}.0"), *_conv_bn(f"{here}.1", f"{convolutions}.1", norm)]


def _conv_bn(here: str, convolution: str, norm: str) -> list[_Pair]:
    """Pairs of a `ConvBNAct`."""
    return [(f"{here}.0", convolution), (f"{here}.1", norm)]
