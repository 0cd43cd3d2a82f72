"""DeepLabv3+ (arXiv 1802.02611): DeepLabv3 as encoder, and a decoder that refines along object boundaries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .deeplab_v3 import ASPP, aspp_rates
from .efficientnet_lite import EfficientNetLite0
from .layers import Activation, ConvBNAct, SeparableConv, resize_to

_LOW_LEVEL_CHANNELS = 48


class DeepLabV3Plus(nn.Module):
    """[N, 3, H, W] → logits [N, classes, H/4, W/4].

    Args:
        backbone: returns (low-level features at stride 4, features at `output_stride`) and has the attributes
            `low_level_channels` and `out_channels`.
    """

    def __init__(
        self,
        backbone: EfficientNetLite0,
        num_classes: int,
        *,
        output_stride: int,
        decoder_channels: int = 256,
        activation: Activation = nn.ReLU,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = ASPP(
            backbone.out_channels,
            256,
            rates=aspp_rates(output_stride),
            separable=True,
            activation=activation,
        )
        self.low_level = ConvBNAct(backbone.low_level_channels, _LOW_LEVEL_CHANNELS, activation=activation)
        self.decoder = nn.Sequential(
            SeparableConv(256 + _LOW_LEVEL_CHANNELS, decoder_channels, activation=activation),
            SeparableConv(decoder_channels, decoder_channels, activation=activation),
        )
        self.classifier = nn.Conv2d(decoder_channels, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        low_level, features = self.backbone(image)
        low_level = self.low_level(low_level)
        encoded = resize_to(self.aspp(features), low_level)
        logits: Tensor = self.classifier(self.decoder(torch.cat([encoded, low_level], dim=1)))
        return logits
