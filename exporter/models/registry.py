"""Registry of the reference architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from torch import nn

from ...arguments import check_arguments
from ...errors import ExportError
from ..normalization import APPLE, CAFFE, IMAGENET, LITE, TENSORFLOW, Normalization
from ..options import Source
from .backbone import Backbone
from .deeplab_v2 import ASPP_L_RATES, ASPP_S_RATES, LARGE_FOV_RATES, DeepLabV2, DeepLabVGG16
from .deeplab_v3 import (
    HF_PYRAMID,
    MMSEG_PYRAMID,
    PLAIN_PYRAMID,
    SEPARABLE_PYRAMID,
    DeepLabV3,
    PyramidStyle,
    aspp_rates,
)
from .deeplab_v3plus import (
    JFZHANG95_DECODER,
    KAZUTO1011_DECODER,
    MMSEG_DECODER,
    MOBILE_DECODER,
    SMP_DECODER,
    TENSORFLOW_DECODER,
    VAINF_DECODER,
    DecoderStyle,
    DeepLabV3Plus,
)
from .efficientnet_lite import EfficientNetLite0
from .mobilenet import (
    HF_MOBILENET,
    JFZHANG95_MOBILENET,
    MMSEG_MOBILENET,
    VAINF_MOBILENET,
    MobileNetV2,
    MobileNetV3Large,
)
from .mobilevit import MOBILEVIT_S, MOBILEVIT_XS, MOBILEVIT_XXS, MobileViT, MobileViTSize
from .resnet import (
    CAFFE_GRID_RESNET,
    CAFFE_RESNET,
    GRID_RESNET,
    MMSEG_RESNET,
    RESNET50_BLOCKS,
    RESNET101_BLOCKS,
    SMP_RESNET,
    ResNet,
)
from .xception import JFZHANG95_XCEPTION, Xception65

# segmentation-models-pytorch uses these at either output stride.
_RGB: Final = 3
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

    return Architecture(
        name, build, (8, 16), align_corners=False, normalization=IMAGENET, sources=("torchvision", "vainf")
    )


def _smp_v3(name: str, backbone: Callable[[int], Backbone]) -> Architecture:
    def build(num_classes: int, output_stride: int) -> nn.Module:
        return DeepLabV3(backbone(output_stride), num_classes, rates=_SMP_RATES)

    return Architecture(name, build, (8, 16), align_corners=True, normalization=IMAGENET, sources=("smp",))


def _smp_v3plus(name: str, backbone: Callable[[int], Backbone]) -> Architecture:
    def build(num_classes: int, output_stride: int) -> nn.Module:
        return DeepLabV3Plus(backbone(output_stride), num_classes, rates=_SMP_RATES, style=SMP_DECODER)

    return Architecture(name, build, (16, 8), align_corners=True, normalization=IMAGENET, sources=("smp",))


_smp_resnet50: Final = partial(ResNet, RESNET50_BLOCKS, style=SMP_RESNET)
_smp_resnet101: Final = partial(ResNet, RESNET101_BLOCKS, style=SMP_RESNET)


def _v2_resnet101(num_classes: int, output_stride: int) -> nn.Module:
    backbone = ResNet(RESNET101_BLOCKS, output_stride, style=CAFFE_RESNET)
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


@dataclass(frozen=True)
class _Repository:
    """Properties that all networks of a repository share."""

    source: Source
    output_strides: tuple[int, ...]
    align_corners: bool
    normalization: Normalization

    def v3(
        self, name: str, backbone: Callable[[int], Backbone], pyramid: PyramidStyle = PLAIN_PYRAMID, *, refined: bool
    ) -> Architecture:
        def build(num_classes: int, output_stride: int) -> nn.Module:
            rates = () if pyramid == HF_PYRAMID else aspp_rates(output_stride)
            return DeepLabV3(backbone(output_stride), num_classes, rates=rates, pyramid=pyramid, refined=refined)

        return self._architecture(name, build)

    def v3plus(self, name: str, backbone: Callable[[int], Backbone], style: DecoderStyle) -> Architecture:
        def build(num_classes: int, output_stride: int) -> nn.Module:
            return DeepLabV3Plus(backbone(output_stride), num_classes, rates=aspp_rates(output_stride), style=style)

        return self._architecture(name, build)

    def _architecture(self, name: str, build: Callable[[int, int], nn.Module]) -> Architecture:
        return Architecture(
            f"{name}_{self.source}",
            build,
            self.output_strides,
            align_corners=self.align_corners,
            normalization=self.normalization,
            sources=(self.source,),
        )


_VAINF: Final = _Repository("vainf", (16, 8), align_corners=False, normalization=IMAGENET)
_JFZHANG95: Final = _Repository("jfzhang95", (16, 8), align_corners=True, normalization=IMAGENET)
_KAZUTO1011: Final = _Repository("kazuto1011", (16, 8), align_corners=False, normalization=CAFFE)
_MMSEG: Final = _Repository("mmseg", (8, 16), align_corners=False, normalization=IMAGENET)
# Its MobileNetV2 has rates for this stride alone.
_MMSEG_MOBILE: Final = _Repository("mmseg", (8,), align_corners=False, normalization=IMAGENET)
_HF: Final = _Repository("hf", (8, 16), align_corners=False, normalization=TENSORFLOW)

# Apple's weights keep stride 16, and its pyramid has that stride's rates.
_HF_APPLE: Final = _Repository("hf", (16,), align_corners=False, normalization=APPLE)


def _mobilevit(size: MobileViTSize) -> Callable[[int], Backbone]:
    return lambda _: MobileViT(size)


_mmseg_resnet50: Final = partial(ResNet, RESNET50_BLOCKS, style=MMSEG_RESNET)
_mmseg_resnet101: Final = partial(ResNet, RESNET101_BLOCKS, style=MMSEG_RESNET)
_mmseg_mobilenet: Final = partial(MobileNetV2, style=MMSEG_MOBILENET)
_kazuto1011_resnet101: Final = partial(ResNet, RESNET101_BLOCKS, style=CAFFE_GRID_RESNET)
_vainf_mobilenet: Final = partial(MobileNetV2, style=VAINF_MOBILENET)

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
    Architecture("deeplabv3_xception65", _v3_xception65, (16, 8), align_corners=True, normalization=TENSORFLOW),
    Architecture("deeplabv3plus_xception65", _v3plus_xception65, (16, 8), align_corners=True, normalization=TENSORFLOW),
    _VAINF.v3("deeplabv3_mobilenet_v2", _vainf_mobilenet, refined=True),
    _VAINF.v3plus("deeplabv3plus_resnet50", partial(ResNet, RESNET50_BLOCKS), VAINF_DECODER),
    _VAINF.v3plus("deeplabv3plus_resnet101", partial(ResNet, RESNET101_BLOCKS), VAINF_DECODER),
    _VAINF.v3plus("deeplabv3plus_mobilenet_v2", _vainf_mobilenet, VAINF_DECODER),
    _JFZHANG95.v3plus(
        "deeplabv3plus_resnet101", partial(ResNet, RESNET101_BLOCKS, style=GRID_RESNET), JFZHANG95_DECODER
    ),
    _JFZHANG95.v3plus("deeplabv3plus_xception65", partial(Xception65, style=JFZHANG95_XCEPTION), JFZHANG95_DECODER),
    _JFZHANG95.v3plus("deeplabv3plus_mobilenet_v2", partial(MobileNetV2, style=JFZHANG95_MOBILENET), JFZHANG95_DECODER),
    _KAZUTO1011.v3("deeplabv3_resnet101", _kazuto1011_resnet101, refined=False),
    _KAZUTO1011.v3plus("deeplabv3plus_resnet101", _kazuto1011_resnet101, KAZUTO1011_DECODER),
    _MMSEG.v3("deeplabv3_resnet50", _mmseg_resnet50, MMSEG_PYRAMID, refined=False),
    _MMSEG.v3("deeplabv3_resnet101", _mmseg_resnet101, MMSEG_PYRAMID, refined=False),
    _MMSEG.v3plus("deeplabv3plus_resnet50", _mmseg_resnet50, MMSEG_DECODER),
    _MMSEG.v3plus("deeplabv3plus_resnet101", _mmseg_resnet101, MMSEG_DECODER),
    _MMSEG_MOBILE.v3("deeplabv3_mobilenet_v2", _mmseg_mobilenet, MMSEG_PYRAMID, refined=False),
    _MMSEG_MOBILE.v3plus("deeplabv3plus_mobilenet_v2", _mmseg_mobilenet, MMSEG_DECODER),
    _HF.v3("deeplabv3_mobilenet_v2", partial(MobileNetV2, style=HF_MOBILENET), HF_PYRAMID, refined=False),
    _HF_APPLE.v3("deeplabv3_mobilevit_small", _mobilevit(MOBILEVIT_S), refined=False),
    _HF_APPLE.v3("deeplabv3_mobilevit_x_small", _mobilevit(MOBILEVIT_XS), refined=False),
    _HF_APPLE.v3("deeplabv3_mobilevit_xx_small", _mobilevit(MOBILEVIT_XXS), refined=False),
)

#: Every reference architecture by its name.
ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType({entry.name: entry for entry in _ALL})


@check_arguments
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


@check_arguments
def create_model(name: str, *, num_classes: int, output_stride: int | None = None, bands: int = 3) -> nn.Module:
    """Build a reference architecture with random weights.

    Args:
        name: a key of `ARCHITECTURES`.
        num_classes: number of classes, the channels of the logits.
        output_stride: output stride of the backbone; None for the architecture's default.
        bands: channels of the image, of which the first convolution takes as many.

    Returns:
        A module, in training mode, that maps [N, bands, H, W] float32 to logits [N, num_classes, h, w].

    Raises:
        ExportError: the name is unknown, the output stride is not supported, or there is less than 1 class or band.
    """
    architecture = find_architecture(name)
    if num_classes < 1:
        raise ExportError(f"{name} needs at least one class; got num_classes={num_classes}")
    stride = architecture.default_output_stride if output_stride is None else output_stride
    if stride not in architecture.output_strides:
        supported = " or ".join(str(value) for value in architecture.output_strides)
        raise ExportError(f"{name} has output stride {supported}; got {stride}")
    if bands < 1:
        raise ExportError(f"{name} needs at least one band; got bands={bands}")
    model = architecture.build(num_classes, stride)
    return model if bands == _RGB else _with_bands(model, bands)


def _with_bands(model: nn.Module, bands: int) -> nn.Module:
    """The same network with a first convolution for other bands, its weights random."""
    first, conv = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == _RGB
    )
    parent, _, own = first.rpartition(".")
    widened = nn.Conv2d(
        bands,
        conv.out_channels,
        _pair(conv.kernel_size),
        _pair(conv.stride),
        _pair(conv.padding),
        _pair(conv.dilation),
        bias=conv.bias is not None,
    )
    setattr(model.get_submodule(parent), own, widened)
    return model


def _pair(sides: Any) -> tuple[int, int]:  # noqa: ANN401 - torch's annotation says less than it holds
    return int(sides[0]), int(sides[1])
