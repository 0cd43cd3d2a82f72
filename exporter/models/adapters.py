"""Key names of the reference networks in foreign state dicts.

Nothing is guessed from shapes: every leaf module of a network is paired with its foreign name. Names follow
torchvision (`models.segmentation`), segmentation-models-pytorch (`DeepLabV3`, `DeepLabV3Plus`) and
kazuto1011/deeplab-pytorch (`DeepLabV2_ResNet101_MSC` and those of v3 and v3+) here, other repositories' in
`repositories`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from torch import nn

from ..options import Source
from .deeplab_v2 import DeepLabV2
from .deeplab_v3 import PLAIN_PYRAMID, DeepLabV3
from .deeplab_v3plus import KAZUTO1011_DECODER, SMP_DECODER, DeepLabV3Plus
from .layers import ConvBNAct, ImagePooling
from .mobilenet import SMP_MOBILENET, MobileNetV2, MobileNetV3Large
from .name_pairs import Pair, aspp, bottlenecks, conv_bn, mobilenet_v2, mobilenet_v3, resnet, separable, tagged
from .repositories import hf, jfzhang95, mmseg, vainf
from .resnet import CAFFE_GRID_RESNET, CAFFE_RESNET, SMP_RESNET, TORCHVISION_RESNET, ResNet

#: Names of the projects, for messages.
SOURCE_NAMES: Final[dict[Source, str]] = {
    "atrous": "atrous",
    "torchvision": "torchvision",
    "smp": "segmentation-models-pytorch",
    "kazuto1011": "kazuto1011/deeplab-pytorch",
    "vainf": "VainF/DeepLabV3Plus-Pytorch",
    "jfzhang95": "jfzhang95/pytorch-deeplab-xception",
    "mmseg": "mmsegmentation",
    "hf": "Hugging Face transformers",
}

#: Weight of the last convolution, whose output channels are the classes.
CLASSIFIER_WEIGHTS: Final[dict[Source, tuple[str, ...]]] = {
    "torchvision": ("classifier.4.weight",),
    "smp": ("segmentation_head.0.weight",),
    "kazuto1011": (
        "base.aspp.c0.weight",
        "aspp.c0.weight",
        "base.fc2.weight",
        "fc2.weight",
        "base.fc2.conv3.weight",
        "fc2.conv3.weight",
    ),
    "vainf": ("classifier.classifier.4.weight", "classifier.classifier.3.weight"),
    "jfzhang95": ("decoder.last_conv.8.weight",),
    "mmseg": ("decode_head.conv_seg.weight",),
    "hf": ("segmentation_head.classifier.convolution.weight",),
    "atrous": ("classifier.weight", "pyramid.branches.0.weight", "pyramid.branches.0.6.weight"),
}

#: Prefixes of keys that hold nothing the network needs, and the reason to ignore them.
TRAINING_HEADS: Final[dict[Source, tuple[str | tuple[str, ...], str]]] = {
    "torchvision": ("aux_classifier.", "auxiliary head, used only in training"),
    "smp": ("classification_head.", "image classification head, not used for segmentation"),
    "jfzhang95": (
        ("backbone.low_level_features.", "backbone.high_level_features."),
        "second name of a weight under backbone.features",
    ),
    "mmseg": ("auxiliary_head.", "auxiliary head, used only in training"),
    "hf": ("mobilenet_v2.conv_1x1.", "last convolution of image classification, not used for segmentation"),
}

_TABLES: Final[dict[Source, Callable[[nn.Module], list[Pair] | None]]] = {
    "vainf": vainf,
    "jfzhang95": jfzhang95,
    "mmseg": mmseg,
    "hf": hf,
}


#: Last part of the key of batch normalization's step counter, which only training uses.
STEP_COUNTER: Final = "num_batches_tracked"


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
    pairs: list[Pair] | None
    if source == "atrous":
        pairs = [(name, name) for name, _ in model.named_modules()]
    elif source == "torchvision":
        pairs = _torchvision(model)
    elif source == "smp":
        pairs = _smp(model)
    elif source in _TABLES:
        pairs = _TABLES[source](model)
    else:
        # Published weights are saved with the multi-scale wrapper; others may not be.
        pairs = _kazuto1011(model, "base." if any(key.startswith("base.") for key in keys) else "")
    return None if pairs is None else dict(pairs)


def _torchvision(model: nn.Module) -> list[Pair] | None:
    if not isinstance(model, DeepLabV3) or not _is_plain(model):
        return None
    if isinstance(model.backbone, ResNet) and model.backbone.style == TORCHVISION_RESNET:
        backbone = resnet(model.backbone, "backbone.")
    elif isinstance(model.backbone, MobileNetV3Large):
        backbone = mobilenet_v3(model.backbone, "backbone.")
    else:
        return None
    return [
        *backbone,
        *aspp(model.aspp, "classifier.0."),
        *conv_bn("head", "classifier.1", "classifier.2"),
        ("classifier", "classifier.4"),
    ]


def _smp(model: nn.Module) -> list[Pair] | None:
    head: list[Pair]
    if isinstance(model, DeepLabV3) and _is_plain(model):
        head = [*aspp(model.aspp, "decoder.aspp."), *conv_bn("head", "decoder.conv", "decoder.bn")]
    elif isinstance(model, DeepLabV3Plus) and model.style == SMP_DECODER:
        head = [
            *aspp(model.aspp, "decoder.aspp.0."),
            *separable("refine", "decoder.aspp.1", "decoder.aspp.2"),
            *conv_bn("low_level", "decoder.block1.0", "decoder.block1.1"),
            *separable("decoder.0", "decoder.block2.0", "decoder.block2.1"),
        ]
    else:
        return None
    if isinstance(model.backbone, ResNet) and model.backbone.style == SMP_RESNET:
        backbone = resnet(model.backbone, "encoder.")
    elif isinstance(model.backbone, MobileNetV2) and model.backbone.style == SMP_MOBILENET:
        backbone = mobilenet_v2(model.backbone, "encoder.features.")
    else:
        return None
    return [*backbone, *head, ("classifier", "segmentation_head.0")]


def _is_plain(model: DeepLabV3) -> bool:
    """True for torchvision's head: the plain pyramid, and a 3×3 convolution behind it."""
    return model.pyramid == PLAIN_PYRAMID and isinstance(model.head, ConvBNAct)


def _kazuto1011(model: nn.Module, prefix: str) -> list[Pair] | None:
    if not isinstance(model, DeepLabV2 | DeepLabV3 | DeepLabV3Plus) or not isinstance(model.backbone, ResNet):
        return None
    if isinstance(model, DeepLabV2):
        style = CAFFE_RESNET
        head = [(f"pyramid.branches.{i}", f"{prefix}aspp.c{i}") for i in range(len(model.pyramid.branches))]
    else:
        style = CAFFE_GRID_RESNET
        head = _kazuto1011_pyramid(model, prefix)
        if isinstance(model, DeepLabV3):
            head += [("classifier", f"{prefix}fc2")]
        elif model.style == KAZUTO1011_DECODER:
            head += tagged("low_level", f"{prefix}reduce")
            head += tagged("decoder.0", f"{prefix}fc2.conv1") + tagged("decoder.1", f"{prefix}fc2.conv2")
            head += [("classifier", f"{prefix}fc2.conv3")]
        else:
            return None
    return _kazuto1011_resnet(model.backbone, prefix) + head if model.backbone.style == style else None


def _kazuto1011_pyramid(model: DeepLabV3 | DeepLabV3Plus, prefix: str) -> list[Pair]:
    pairs = tagged("aspp.project.0", f"{prefix}fc1")
    for index, branch in enumerate(model.aspp.branches):
        here = f"aspp.branches.{index}"
        if isinstance(branch, ImagePooling):
            pairs += tagged(f"{here}.1", f"{prefix}aspp.stages.imagepool.conv")
        else:
            pairs += tagged(here, f"{prefix}aspp.stages.c{index}")
    return pairs


def _kazuto1011_resnet(backbone: ResNet, prefix: str) -> list[Pair]:
    pairs = tagged("backbone.stem.0", f"{prefix}layer1.conv1")
    for here, stage, index, block in bottlenecks(backbone):
        there = f"{prefix}layer{stage + 1}.block{index + 1}"
        pairs += tagged(f"{here}.reduce", f"{there}.reduce")
        pairs += tagged(f"{here}.spatial", f"{there}.conv3x3")
        pairs += tagged(f"{here}.expand", f"{there}.increase")
        if isinstance(block.shortcut, ConvBNAct):
            pairs += tagged(f"{here}.shortcut", f"{there}.shortcut")
    return pairs
