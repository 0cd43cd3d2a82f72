"""Module names of VainF/DeepLabV3Plus-Pytorch, jfzhang95/pytorch-deeplab-xception, mmsegmentation and Hugging Face.

Each function pairs every leaf module of a network that has weights with its foreign name, or returns None for a network
that computes something else than the repository's.
"""

from __future__ import annotations

from typing import Final

from torch import nn

from .deeplab_v3 import ASPP, HF_PYRAMID, MMSEG_PYRAMID, PLAIN_PYRAMID, DeepLabV3
from .deeplab_v3plus import JFZHANG95_DECODER, MMSEG_DECODER, VAINF_DECODER, DeepLabV3Plus
from .layers import ConvBNAct, ImagePooling, SeparableConv
from .mobilenet import HF_MOBILENET, JFZHANG95_MOBILENET, MMSEG_MOBILENET, VAINF_MOBILENET, MobileNetV2
from .mobilevit import MobileViT, MobileViTBlock
from .name_pairs import Pair, aspp, conv_bn, inverted_residuals, mobilenet_v2, resnet, tagged
from .resnet import GRID_RESNET, MMSEG_RESNET, TORCHVISION_RESNET, ResNet
from .xception import JFZHANG95_XCEPTION, Xception65, XceptionBlock

_HF_TAGS: Final = ("convolution", "normalization")
_HF_LAYERS: Final = ("expand_1x1", "conv_3x3", "reduce_1x1")


def vainf(model: nn.Module) -> list[Pair] | None:
    """Pair the names of VainF/DeepLabV3Plus-Pytorch."""
    head: list[Pair]
    if isinstance(model, DeepLabV3) and model.pyramid == PLAIN_PYRAMID and isinstance(model.head, ConvBNAct):
        there = "classifier.classifier"
        head = aspp(model.aspp, f"{there}.0.") + conv_bn("head", f"{there}.1", f"{there}.2")
        head.append(("classifier", f"{there}.4"))
    elif isinstance(model, DeepLabV3Plus) and model.style == VAINF_DECODER:
        head = [
            *conv_bn("low_level", "classifier.project.0", "classifier.project.1"),
            *aspp(model.aspp, "classifier.aspp."),
            *conv_bn("decoder.0", "classifier.classifier.0", "classifier.classifier.1"),
            ("classifier", "classifier.classifier.3"),
        ]
    else:
        return None
    backbone = model.backbone
    if isinstance(backbone, ResNet) and backbone.style == TORCHVISION_RESNET:
        return resnet(backbone, "backbone.") + head
    if isinstance(backbone, MobileNetV2) and backbone.style == VAINF_MOBILENET:
        return mobilenet_v2(backbone, "backbone.low_level_features.", "backbone.high_level_features.") + head
    return None


def jfzhang95(model: nn.Module) -> list[Pair] | None:
    """Pair the names of jfzhang95/pytorch-deeplab-xception."""
    if not isinstance(model, DeepLabV3Plus) or model.style != JFZHANG95_DECODER:
        return None
    backbone = model.backbone
    if isinstance(backbone, ResNet) and backbone.style == GRID_RESNET:
        pairs = resnet(backbone, "backbone.")
    elif isinstance(backbone, Xception65) and backbone.style == JFZHANG95_XCEPTION:
        pairs = _jfzhang95_xception(backbone)
    elif isinstance(backbone, MobileNetV2) and backbone.style == JFZHANG95_MOBILENET:
        pairs = _jfzhang95_mobilenet(backbone)
    else:
        return None
    for index, branch in enumerate(model.aspp.branches):
        here = f"aspp.branches.{index}"
        if isinstance(branch, ImagePooling):
            pairs += conv_bn(f"{here}.1", "aspp.global_avg_pool.1", "aspp.global_avg_pool.2")
        else:
            pairs += tagged(here, f"aspp.aspp{index + 1}", ("atrous_conv", "bn"))
    return [
        *pairs,
        *conv_bn("aspp.project.0", "aspp.conv1", "aspp.bn1"),
        *conv_bn("low_level", "decoder.conv1", "decoder.bn1"),
        *conv_bn("decoder.0", "decoder.last_conv.0", "decoder.last_conv.1"),
        *conv_bn("decoder.1", "decoder.last_conv.4", "decoder.last_conv.5"),
        ("classifier", "decoder.last_conv.8"),
    ]


def _jfzhang95_mobilenet(backbone: MobileNetV2) -> list[Pair]:
    pairs = conv_bn("backbone.stem", "backbone.features.0.0", "backbone.features.0.1")
    for index, (here, block) in enumerate(inverted_residuals(backbone), start=1):
        there = f"backbone.features.{index}.conv"
        for layer in range(len(block.layers)):
            pairs += conv_bn(f"{here}.layers.{layer}", f"{there}.{3 * layer}", f"{there}.{3 * layer + 1}")
    return pairs


def _jfzhang95_xception(backbone: Xception65) -> list[Pair]:
    pairs = conv_bn("backbone.stem.0", "backbone.conv1", "backbone.bn1")
    pairs += conv_bn("backbone.stem.1", "backbone.conv2", "backbone.bn2")
    blocks = [
        (name, block) for name, block in backbone.named_modules(prefix="backbone") if isinstance(block, XceptionBlock)
    ]
    # Registered in the order of the forward pass: entry, middle, exit.
    for number, (here, block) in enumerate(blocks, start=1):
        there = f"backbone.block{number}"
        # The first two blocks begin without a ReLU, because what they read is activated already.
        first = 0 if number <= 2 else 1
        for layer, name in enumerate(("first", "second", "third")):
            position = first + 3 * layer
            pairs += _jfzhang95_separable(f"{here}.{name}", f"{there}.rep.{position}", f"{there}.rep.{position + 1}")
        if isinstance(block.shortcut, ConvBNAct):
            pairs += conv_bn(f"{here}.shortcut", f"{there}.skip", f"{there}.skipbn")
    for index in range(len(backbone.last)):
        number = index + 3
        pairs += _jfzhang95_separable(f"backbone.last.{index}", f"backbone.conv{number}", f"backbone.bn{number}")
    return pairs


def _jfzhang95_separable(here: str, there: str, norm: str) -> list[Pair]:
    return tagged(f"{here}.0", there, ("conv1", "bn")) + conv_bn(f"{here}.1", f"{there}.pointwise", norm)


def mmseg(model: nn.Module) -> list[Pair] | None:
    """Pair the names of mmsegmentation: `ASPPHead` and `DepthwiseSeparableASPPHead`."""
    if isinstance(model, DeepLabV3) and model.pyramid == MMSEG_PYRAMID:
        head: list[Pair] = []
    elif isinstance(model, DeepLabV3Plus) and model.style == MMSEG_DECODER:
        head = tagged("low_level", "decode_head.c1_bottleneck")
        for index in range(len(model.decoder)):
            head += _mmseg_separable(f"decoder.{index}", f"decode_head.sep_bottleneck.{index}")
    else:
        return None
    backbone = model.backbone
    if isinstance(backbone, ResNet) and backbone.style == MMSEG_RESNET:
        pairs = resnet(backbone, "backbone.")
    elif isinstance(backbone, MobileNetV2) and backbone.style == MMSEG_MOBILENET:
        pairs = _mmseg_mobilenet(backbone)
    else:
        return None
    return [*pairs, *_mmseg_pyramid(model.aspp), *head, ("classifier", "decode_head.conv_seg")]


def _mmseg_mobilenet(backbone: MobileNetV2) -> list[Pair]:
    pairs = tagged("backbone.stem", "backbone.conv1")
    for here, block in inverted_residuals(backbone):
        _, level, stage, index = here.split(".")
        number = int(stage) + (1 if level == "low_level" else 1 + len(backbone.low_level))
        for layer in range(len(block.layers)):
            pairs += tagged(f"{here}.layers.{layer}", f"backbone.layer{number}.{index}.conv.{layer}")
    return pairs


def _mmseg_pyramid(pyramid: ASPP) -> list[Pair]:
    pairs = tagged("aspp.branches.0.1", "decode_head.image_pool.1") + tagged("aspp.project.0", "decode_head.bottleneck")
    for index, branch in enumerate(list(pyramid.branches)[1:]):
        here, there = f"aspp.branches.{index + 1}", f"decode_head.aspp_modules.{index}"
        pairs += _mmseg_separable(here, there) if isinstance(branch, SeparableConv) else tagged(here, there)
    return pairs


def _mmseg_separable(here: str, there: str) -> list[Pair]:
    return tagged(f"{here}.0", f"{there}.depthwise_conv") + tagged(f"{here}.1", f"{there}.pointwise_conv")


def hf(model: nn.Module) -> list[Pair] | None:
    """Pair the names of transformers' `MobileNetV2ForSemanticSegmentation` and `MobileViTForSemanticSegmentation`."""
    if not isinstance(model, DeepLabV3):
        return None
    backbone = model.backbone
    if isinstance(backbone, MobileViT):
        return _hf_mobilevit(model, backbone)
    if model.pyramid != HF_PYRAMID:
        return None
    if not isinstance(backbone, MobileNetV2) or backbone.style != HF_MOBILENET:
        return None
    pairs = tagged("backbone.stem", "mobilenet_v2.conv_stem.first_conv", _HF_TAGS)
    for index, (here, block) in enumerate(inverted_residuals(backbone)):
        # The first block has no expansion, and is part of the stem there.
        there = f"mobilenet_v2.layer.{index - 1}" if index else "mobilenet_v2.conv_stem"
        for layer, name in enumerate(_HF_LAYERS[-len(block.layers) :]):
            pairs += tagged(f"{here}.layers.{layer}", f"{there}.{name}", _HF_TAGS)
    return [
        *pairs,
        *tagged("aspp.branches.0.1", "segmentation_head.conv_pool", _HF_TAGS),
        *tagged("aspp.branches.1", "segmentation_head.conv_aspp", _HF_TAGS),
        *tagged("aspp.project.0", "segmentation_head.conv_projection", _HF_TAGS),
        ("classifier", "segmentation_head.classifier.convolution"),
    ]


def _hf_mobilevit(model: DeepLabV3, backbone: MobileViT) -> list[Pair]:
    encoder, head = "mobilevit.encoder.layer", "segmentation_head"
    pairs = tagged("backbone.stem", "mobilevit.conv_stem", _HF_TAGS)
    for index in range(len(backbone.low_level)):
        # The first stage has one block, the second the others.
        there = f"{encoder}.1.layer.{index - 1}" if index else f"{encoder}.0.layer.0"
        pairs += _hf_residual(f"backbone.low_level.{index}", there)
    for index, block in enumerate(backbone.high_level):
        assert isinstance(block, MobileViTBlock), "which all of these stages are"  # noqa: S101
        here, there = f"backbone.high_level.{index}", f"{encoder}.{index + 2}"
        pairs += _hf_residual(f"{here}.entry", f"{there}.downsampling_layer")
        pairs += tagged(f"{here}.local", f"{there}.conv_kxk", _HF_TAGS)
        pairs += [(f"{here}.widen", f"{there}.conv_1x1.convolution"), (f"{here}.norm", f"{there}.layernorm")]
        for layer in range(len(block.transformer)):
            pairs += _hf_transformer(f"{here}.transformer.{layer}", f"{there}.transformer.layer.{layer}")
        pairs += tagged(f"{here}.narrow", f"{there}.conv_projection", _HF_TAGS)
        pairs += tagged(f"{here}.fuse", f"{there}.fusion", _HF_TAGS)
    for index, branch in enumerate(model.aspp.branches):
        pooling = isinstance(branch, ImagePooling)
        here, there = f"aspp.branches.{index}", f"{head}.aspp.convs.{index}"
        pairs += tagged(f"{here}.1" if pooling else here, f"{there}.conv_1x1" if pooling else there, _HF_TAGS)
    return [
        *pairs,
        *tagged("aspp.project.0", f"{head}.aspp.project", _HF_TAGS),
        ("classifier", f"{head}.classifier.convolution"),
    ]


def _hf_residual(here: str, there: str) -> list[Pair]:
    return [
        pair
        for layer, name in enumerate(_HF_LAYERS)
        for pair in tagged(f"{here}.layers.{layer}", f"{there}.{name}", _HF_TAGS)
    ]


def _hf_transformer(here: str, there: str) -> list[Pair]:
    return [
        (f"{here}.norm_before", f"{there}.layernorm_before"),
        (f"{here}.norm_after", f"{there}.layernorm_after"),
        *((f"{here}.attention.{name}", f"{there}.attention.attention.{name}") for name in ("query", "key", "value")),
        (f"{here}.attention.dense", f"{there}.attention.output.dense"),
        (f"{here}.perceptron.0", f"{there}.intermediate.dense"),
        (f"{here}.perceptron.2", f"{there}.output.dense"),
    ]
