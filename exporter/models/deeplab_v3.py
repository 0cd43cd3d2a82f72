"""DeepLabv3 (arXiv 1706.05587): atrous spatial pyramid pooling with image-level features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .layers import Activation, ConvBNAct, ImagePooling, SeparableConv

ASPP_CHANNELS: Final = 256


class ASPP(nn.Module):
    """1×1, three 3×3 atrous branches and image pooling, concatenated and projected: [N, in, h, w] → [N, out, h, w].

    Args:
        rates: atrous rates of the 3×3 branches; (6, 12, 18) at output stride 16, doubled at 8 (§4.1).
        separable: depthwise-separable branches, as in DeepLabv3+.
        inner_norm: see `SeparableConv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = ASPP_CHANNELS,
        *,
        rates: Sequence[int],
        separable: bool = False,
        inner_norm: bool = True,
        activation: Activation = nn.ReLU,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        branches: list[nn.Module] = [ConvBNAct(in_channels, out_channels, activation=activation)]
        for rate in rates:
            if separable:
                branches.append(
                    SeparableConv(in_channels, out_channels, rate=rate, activation=activation, inner_norm=inner_norm)
                )
            else:
                branches.append(ConvBNAct(in_channels, out_channels, 3, rate=rate, activation=activation))
        branches.append(ImagePooling(in_channels, out_channels, activation=activation))
        self.branches = nn.ModuleList(branches)
        self.project = nn.Sequential(
            ConvBNAct(len(branches) * out_channels, out_channels, activation=activation), nn.Dropout(dropout)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Concatenate the branches and project them to the output channels."""
        projected: Tensor = self.project(torch.cat([branch(features) for branch in self.branches], dim=1))
        return projected


class DeepLabV3(nn.Module):
    """[N, 3, H, W] → logits [N, classes, H/OS, W/OS].

    The 3×3 convolution between the pyramid and the classifier is not in the paper; torchvision and
    segmentation-models-pytorch both have it, and all public weights come from them.

    Args:
        rates: rates of the pyramid's atrous branches; see `aspp_rates`.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, rates: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = ASPP(backbone.out_channels, rates=rates)
        self.head = ConvBNAct(ASPP_CHANNELS, ASPP_CHANNELS, 3)
        self.classifier = nn.Conv2d(ASPP_CHANNELS, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return coarse logits."""
        _, features = self.backbone(image)
        logits: Tensor = self.classifier(self.head(self.aspp(features)))
        return logits


def aspp_rates(output_stride: int) -> tuple[int, int, int]:
    """Rates that cover the same image area at either output stride (arXiv 1706.05587 §4.1)."""
    return (6, 12, 18) if output_stride == 16 else (12, 24, 36)
