"""DeepLabv3+ (arXiv 1802.02611): DeepLabv3 as encoder, and a decoder that refines along object boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .deeplab_v3 import ASPP, MMSEG_PYRAMID, PLAIN_PYRAMID, SEPARABLE_PYRAMID, PyramidStyle
from .layers import ConvBNAct, SeparableConv, resize_to

_LOW_LEVEL_CHANNELS: Final = 48


@dataclass(frozen=True)
class DecoderStyle:
    """Variant of pyramid and decoder; implementations differ in these points.

    Attributes:
        pyramid: variant of the pyramid; its activation is that of everything after the backbone.
        channels: channels of the decoder's convolutions.
        convolutions: number of convolutions between the concatenation and the classifier.
        separable: these are separable, with the pyramid's `inner_norm`.
        refine_encoder: add a separable convolution between the pyramid and the upsampling.
        low_level_first: low-level features come first in the concatenation, not second.
        align_corners: rule by which the encoder's features are upsampled to stride 4.
    """

    pyramid: PyramidStyle
    channels: int = 256
    convolutions: int = 2
    separable: bool = True
    refine_encoder: bool = False
    low_level_first: bool = False
    align_corners: bool = False


#: The decoder of the paper (arXiv 1802.02611 §3.1, tables 1 and 2), as its authors released it in TensorFlow.
TENSORFLOW_DECODER: Final = DecoderStyle(SEPARABLE_PYRAMID, align_corners=True)
#: TensorFlow's decoder (two convolutions, normalized halves), narrowed and with ReLU6 to quantize and run well.
MOBILE_DECODER: Final = DecoderStyle(PyramidStyle(separable=True, activation=nn.ReLU6), channels=128)
#: The decoder of segmentation-models-pytorch.
SMP_DECODER: Final = DecoderStyle(
    PyramidStyle(separable=True, inner_norm=False), convolutions=1, refine_encoder=True, align_corners=True
)

#: That of VainF.
VAINF_DECODER: Final = DecoderStyle(PLAIN_PYRAMID, convolutions=1, separable=False, low_level_first=True)
#: That of jfzhang95.
JFZHANG95_DECODER: Final = DecoderStyle(PLAIN_PYRAMID, separable=False, align_corners=True)
#: That of kazuto1011.
KAZUTO1011_DECODER: Final = DecoderStyle(PLAIN_PYRAMID, separable=False)
#: That of mmsegmentation.
MMSEG_DECODER: Final = DecoderStyle(replace(MMSEG_PYRAMID, separable=True), channels=512)


class DeepLabV3Plus(nn.Module):
    """[N, 3, H, W] → logits [N, classes, H/4, W/4].

    Args:
        rates: rates of the pyramid's atrous branches; see `aspp_rates`.
        style: variant of pyramid and decoder.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, rates: Sequence[int], style: DecoderStyle) -> None:
        super().__init__()
        self.backbone = backbone
        encoded = style.pyramid.channels
        self.aspp = ASPP(backbone.out_channels, rates=rates, style=style.pyramid)
        self.refine: nn.Module = _separable(encoded, encoded, style) if style.refine_encoder else nn.Identity()
        activation = style.pyramid.activation
        self.low_level = ConvBNAct(backbone.low_level_channels, _LOW_LEVEL_CHANNELS, activation=activation)
        convolution = _separable if style.separable else _dense
        widths = [encoded + _LOW_LEVEL_CHANNELS, *[style.channels] * style.convolutions]
        self.decoder = nn.Sequential(*(convolution(before, after, style) for before, after in pairwise(widths)))
        self.classifier = nn.Conv2d(style.channels, num_classes, 1)
        self.style = style

    def forward(self, image: Tensor) -> Tensor:
        """Return coarse logits."""
        low_level, features = self.backbone(image)
        low_level = self.low_level(low_level)
        encoded = resize_to(self.refine(self.aspp(features)), low_level, align_corners=self.style.align_corners)
        # The order of the concatenation is part of the weights.
        both = [low_level, encoded] if self.style.low_level_first else [encoded, low_level]
        logits: Tensor = self.classifier(self.decoder(torch.cat(both, dim=1)))
        return logits


def _separable(in_channels: int, out_channels: int, style: DecoderStyle) -> SeparableConv:
    pyramid = style.pyramid
    return SeparableConv(in_channels, out_channels, activation=pyramid.activation, inner_norm=pyramid.inner_norm)


def _dense(in_channels: int, out_channels: int, style: DecoderStyle) -> ConvBNAct:
    return ConvBNAct(in_channels, out_channels, 3, activation=style.pyramid.activation)
