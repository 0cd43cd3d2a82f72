"""DeepLabv3 (arXiv 1706.05587): atrous spatial pyramid pooling with image-level features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import Activation, ConvBNAct, ImagePooling, SeparableConv


class ASPP(nn.Module):
    """1×1, three 3×3 atrous branches and image pooling, concatenated and projected: [N, in, h, w] → [N, out, h, w].

    Args:
        rates: atrous rates of the 3×3 branches; (6, 12, 18) at output stride 16, doubled at 8 (§4.1).
        separable: depthwise-separable branches, as in DeepLabv3+.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        *,
        rates: Sequence[int],
        separable: bool = False,
        activation: Activation = nn.ReLU,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        branches: list[nn.Module] = [ConvBNAct(in_channels, out_channels, activation=activation)]
        for rate in rates:
            if separable:
                branches.append(SeparableConv(in_channels, out_channels, rate=rate, activation=activation))
            else:
                branches.append(ConvBNAct(in_channels, out_channels, 3, rate=rate, activation=activation))
        branches.append(ImagePooling(in_channels, out_channels, activation=activation))
        self.branches = nn.ModuleList(branches)
        self.project = nn.Sequential(
            ConvBNAct(len(branches) * out_channels, out_channels, activation=activation), nn.Dropout(dropout)
        )

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.project(torch.cat([branch(features) for branch in self.branches], dim=1))
        return projected


def aspp_rates(output_stride: int) -> tuple[int, int, int]:
    """Rates that cover the same image area at either output stride (arXiv 1706.05587 §4.1)."""
    return (6, 12, 18) if output_stride == 16 else (12, 24, 36)
