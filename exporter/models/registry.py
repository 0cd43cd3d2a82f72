"""Registry of the reference architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from torch import nn

from ...errors import ExportError
from ..normalization import CAFFE, IMAGENET, LITE, SYMMETRIC, Normalization
from ..options import Source
from .deeplab_v2 import ASPP_L_RATES, ASPP_S_RATES, LARGE_FOV_RATES, DeepLabV2, DeepLabVGG16
from .deeplab_v3 import SEPARABLE_PYRAMID, DeepLabV3, aspp_rates
from .deeplab_v3plus import MOBILE_DECODER, SMP_DECODER, TENSORFLOW_DECODER, DeepLabV3Plus
from .efficientnet_lite import EfficientNetLite0
from .mobilenet import MobileNetV2, MobileNetV3Large
from .resnet import RESNET50_BLOCKS, RESNET101_BLOCKS, ResNet
from .xception import Xception65

# segmentation-models-pytorch uses these at either output stride.
_SMP_RATES: Final = (12, 24, 36)


@dataclass(frozen=True)
class Architecture:
    """Reference network: its builder, and the properties that exporter and runtime need.

    Attributes:
        name: key in `ARCHITECTURES`.
        build: (number of classes, output stride of the backbone) → module.
        output_strides: supported output strides; the first is the default, with which public weights were trained.
        align_corners: rule by which the logits are upsampled to the image, from the code that trained the weights.
        normalization: input normalization of trained weights.
        sources: libraries whose state dicts this network can load.
    """

    name: str
    build: Callable[[int, int], nn.Module]
    output_strides: tuple[int, ...]
    align_corners: bool
    normalization: Normalization
    sources: tuple[Source, ...] = ()

    @property
    def default_output_stride(self) -> int:
        """Output stride with which public weights were trained."""
        return self.output_strides[0]


def _vgg16(name: str, rates: tuple[int, ...]) -> Architecture:
    def build(num_classes: int, _: int) -> nn.Module:
        return DeepLabVGG16(num_classes, rates=rates)

    # Caffe's Interp layer, which DeepLab's prototxt upsamples the scores with, aligns corners.
    return Architecture(name, build, (8,), align_corners=True, normalization=CAFFE)


def _v3_resnet(name: str, blocks: tuple[int, ...]) -> Architecture:
    def build(num_classes: int, output_stride: int) -> nn.Module:
        return DeepLabV3(ResNet(blocks, output_stride), num_classes, rates=aspp_rates(output_stride))

    return Architecture(name, build, (8, 16), align_corners=False, normalization=IMAGENET, sources=("torchvision",))


def _smp_v3(name: str, backbone: Callable[[int], ResNet | MobileNetV2]) -> Architecture:
    def build(num_classes: int, output_stride: int) -> nn.Module:
        return DeepLabV3(backbone(output_stride), num_classes, rates=_SMP_RATES)

    return Architecture(name, build, (8, 16), align_corners=True, normalization=IMAGENET, sources=("smp",))


def _smp_v3plus(name: str, backbone: Callable[[int], ResNet | MobileNetV2]) -> Architecture:
    def build(num_classes: int, output_stride: int) -> nn.Module:
        return DeepLabV3Plus(backbone(output_stride), num_classes, rates=_SMP_RATES, style=SMP_DECODER)

    return Architecture(name, build, (16, 8), align_corners=True, normalization=IMAGENET, sources=("smp",))


def _smp_resnet50(output_stride: int) -> ResNet:
    return ResNet(RESNET50_BLOCKS, output_stride, rule="uniform")


def _smp_resnet101(output_stride: int) -> ResNet:
    return ResNet(RESNET101_BLOCKS, output_stride, rule="uniform")


def _v2_resnet101(num_classes: int, output_stride: int) -> nn.Module:
    backbone = ResNet(RESNET101_BLOCKS, output_stride, rule="uniform", caffe_layout=True)
    return DeepLabV2(backbone, num_classes, rates=ASPP_L_RATES)


def _v3_mobilenet_v3(num_classes: int, output_stride: int) -> nn.Module:
    # torchvision trains this one at output stride 16 with the rates that the paper gives for 8.
    rates = tuple(rate * 16 // output_stride for rate in aspp_rates(8))
    return DeepLabV3(MobileNetV3Large(output_stride), num_classes, rates=rates)


def _v3plus_lite0(num_classes: int, output_stride: int) -> nn.Module:
    backbone = EfficientNetLite0(output_stride)
    return DeepLabV3Plus(backbone, num_classes, rates=aspp_rates(output_stride), style=MOBILE_DECODER)


def _v3_xception65(num_classes: int, output_stride: int) -> nn.Module:
    backbone = Xception65(output_stride)
    return DeepLabV3(backbone, num_classes, rates=aspp_rates(output_stride), pyramid=SEPARABLE_PYRAMID, refined=False)


def _v3plus_xception65(num_classes: int, output_stride: int) -> nn.Module:
    return DeepLabV3Plus(
        Xception65(output_stride), num_classes, rates=aspp_rates(output_stride), style=TENSORFLOW_DECODER
    )


_ALL: Final = (
    _vgg16("deeplab_largefov_vgg16", LARGE_FOV_RATES),
    _vgg16("deeplab_aspp_s_vgg16", ASPP_S_RATES),
    _vgg16("deeplab_aspp_l_vgg16", ASPP_L_RATES),
    # Half-pixel centres: kazuto1011's weights, unlike the Caffe originals, were trained and are upsampled that way.
    Architecture(
        "deeplabv2_resnet101",
        _v2_resnet101,
        (8,),
        align_corners=False,
        normalization=CAFFE,
        sources=("kazuto1011",),
    ),
    _v3_resnet("deeplabv3_resnet50", RESNET50_BLOCKS),
    _v3_resnet("deeplabv3_resnet101", RESNET101_BLOCKS),
    _smp_v3("deeplabv3_resnet50_smp", _smp_resnet50),
    _smp_v3("deeplabv3_resnet101_smp", _smp_resnet101),
    _smp_v3("deeplabv3_mobilenet_v2", MobileNetV2),
    Architecture(
        "deeplabv3_mobilenet_v3_large",
        _v3_mobilenet_v3,
        (16, 8),
        align_corners=False,
        normalization=IMAGENET,
        sources=("torchvision",),
    ),
    _smp_v3plus("deeplabv3plus_resnet50", _smp_resnet50),
    _smp_v3plus("deeplabv3plus_resnet101", _smp_resnet101),
    _smp_v3plus("deeplabv3plus_mobilenet_v2", MobileNetV2),
    Architecture(
        "deeplabv3plus_efficientnet_lite0",
        _v3plus_lite0,
        (16, 8),
        align_corners=False,
        normalization=LITE,
    ),
    # The authors' code aligns corners and scales pixels to -1…1.
    Architecture("deeplabv3_xception65", _v3_xception65, (16, 8), align_corners=True, normalization=SYMMETRIC),
    Architecture("deeplabv3plus_xception65", _v3plus_xception65, (16, 8), align_corners=True, normalization=SYMMETRIC),
)

#: Every reference architecture by its name.
ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType({entry.name: entry for entry in _ALL})


def find_architecture(name: str) -> Architecture:
    """Look up a reference architecture.

    Raises:
        ExportError: the name is unknown; the message suggests the closest and lists all.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    closest = get_close_matches(name, ARCHITECTURES, n=1)
    suggestion = f" Did you mean {closest[0]!r}?" if closest else ""
    raise ExportError(f"unknown architecture {name!r}.{suggestion} Known: {', '.join(ARCHITECTURES)}")


def create_model(name: str, *, num_classes: int, output_stride: int | None = None) -> nn.Module:
    """Build a reference architecture with random weights.

    Args:
        name: a key of `ARCHITECTURES`.
        num_classes: number of classes, the channels of the logits.
        output_stride: output stride of the backbone; None for the architecture's default.

    Returns:
        A module, in training mode, that maps [N, 3, H, W] float32 to logits [N, num_classes, h, w].

    Raises:
        ExportError: the name is unknown, the output stride is not supported, or `num_classes` is less than 1.
    """
    architecture = find_architecture(name)
    if num_classes < 1:
        raise ExportError(f"{name} needs at least one class; got num_classes={num_classes}")
    stride = architecture.default_output_stride if output_stride is None else output_stride
    if stride not in architecture.output_strides:
        supported = " or ".join(str(value) for value in architecture.output_strides)
        raise ExportError(f"{name} has output stride {supported}; got {stride}")
    return architecture.build(num_classes, stride)
