"""DeepLabv3+ (arXiv 1802.02611): DeepLabv3 as encoder, and a decoder that refines along object boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .deeplab_v3 import ASPP, ASPP_CHANNELS
from .layers import Activation, ConvBNAct, SeparableConv, resize_to

_LOW_LEVEL_CHANNELS: Final = 48


@dataclass(frozen=True)
class DecoderStyle:
    """Variant of the decoder; implementations differ in these points.

    Attributes:
        channels: channels of the decoder's convolutions.
        convolutions: number of convolutions between the concatenation and the classifier.
        inner_norm: normalize between the halves of separable convolutions.
        refine_encoder: add a separable convolution between the pyramid and the upsampling.
        align_corners: rule by which the encoder's features are upsampled to stride 4.
        activation: activation after the backbone.
    """

    channels: int
    convolutions: int
    inner_norm: bool
    refine_encoder: bool
    align_corners: bool
    activation: Activation


#: TensorFlow's decoder (two convolutions, normalized halves), narrowed and with ReLU6 to quantize and run well.
MOBILE_DECODER: Final = DecoderStyle(
    channels=128, convolutions=2, inner_norm=True, refine_encoder=False, align_corners=False, activation=nn.ReLU6
)
#: The decoder of segmentation-models-pytorch.
SMP_DECODER: Final = DecoderStyle(
    channels=256, convolutions=1, inner_norm=False, refine_encoder=True, align_corners=True, activation=nn.ReLU
)


class DeepLabV3Plus(nn.Module):
    """[N, 3, H, W] → logits [N, classes, H/4, W/4].

    Args:
        rates: rates of the pyramid's atrous branches; see `aspp_rates`.
        style: `MOBILE_DECODER` or `SMP_DECODER`.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, rates: Sequence[int], style: DecoderStyle) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = ASPP(
            backbone.out_channels,
            rates=rates,
            separable=True,
            inner_norm=style.inner_norm,
            activation=style.activation,
        )
        self.refine: nn.Module = nn.Identity()
        if style.refine_encoder:
            self.refine = _separable(ASPP_CHANNELS, ASPP_CHANNELS, style)
        self.low_level = ConvBNAct(backbone.low_level_channels, _LOW_LEVEL_CHANNELS, activation=style.activation)
        widths = [ASPP_CHANNELS + _LOW_LEVEL_CHANNELS, *[style.channels] * style.convolutions]
        self.decoder = nn.Sequential(*(_separable(before, after, style) for before, after in pairwise(widths)))
        self.classifier = nn.Conv2d(style.channels, num_classes, 1)
        self.style = style

    def forward(self, image: Tensor) -> Tensor:
        """Return coarse logits."""
        low_level, features = self.backbone(image)
        low_level = self.low_level(low_level)
        encoded = resize_to(self.refine(self.aspp(features)), low_level, align_corners=self.style.align_corners)
        # Channel order of the concatenation is part of the weights: encoder first.
        logits: Tensor = self.classifier(self.decoder(torch.cat([encoded, low_level], dim=1)))
        return logits


def _separable(in_channels: int, out_channels: int, style: DecoderStyle) -> SeparableConv:
    return SeparableConv(in_channels, out_channels, activation=style.activation, inner_norm=style.inner_norm)
