"""ResNet-50 and -101 (arXiv 1512.03385) with atrous rates in place of the last strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from .backbone import RateRule, StagePlan, plan_stages
from .layers import ConvBNAct

RESNET50_BLOCKS: Final = (3, 4, 6, 3)
RESNET101_BLOCKS: Final = (3, 4, 23, 3)

_STEM_CHANNELS: Final = 64
_STAGE_STRIDES: Final = (1, 2, 2, 2)
_EXPANSION: Final = 4


class Bottleneck(nn.Module):
    """1×1 reduction, 3×3 convolution, 1×1 expansion, added to the shortcut: [N, in, h, w] → [N, 4·mid, ·, ·].

    Args:
        stride_in_reduction: stride in the 1×1 reduction (the paper, Caffe) instead of the 3×3 (torchvision).
    """

    def __init__(
        self, in_channels: int, mid_channels: int, *, stride: int, rate: int, stride_in_reduction: bool
    ) -> None:
        super().__init__()
        out_channels = _EXPANSION * mid_channels
        first, second = (stride, 1) if stride_in_reduction else (1, stride)
        self.reduce = ConvBNAct(in_channels, mid_channels, stride=first)
        self.spatial = ConvBNAct(mid_channels, mid_channels, 3, stride=second, rate=rate)
        self.expand = ConvBNAct(mid_channels, out_channels, activation=None)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = ConvBNAct(in_channels, out_channels, stride=stride, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, h, w] → [N, 4·mid, h/stride, w/stride]."""
        residual: Tensor = self.expand(self.spatial(self.reduce(x)))
        return torch.relu(residual + self.shortcut(x))


class ResNet(nn.Module):
    """[N, 3, H, W] → (low-level features [N, 256, H/4, W/4], features [N, 2048, H/OS, W/OS]).

    Args:
        blocks: bottlenecks in each of the four stages: `RESNET50_BLOCKS` or `RESNET101_BLOCKS`.
        output_stride: 8 or 16.
        rule: rate of the first block of an atrous stage; see `RateRule`.
        caffe_layout: layout of DeepLabv2's Caffe ResNet: the pool rounds its size up (H/4 + 1 for even sizes), and
            blocks stride in their 1×1 reduction.
    """

    low_level_channels = 256
    out_channels = 2048

    def __init__(
        self,
        blocks: Sequence[int],
        output_stride: int = 16,
        *,
        rule: RateRule = "graded",
        caffe_layout: bool = False,
    ) -> None:
        super().__init__()
        self.rule = rule
        self.stem = nn.Sequential(
            ConvBNAct(3, _STEM_CHANNELS, 7, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=caffe_layout),
        )
        plans = plan_stages(_STAGE_STRIDES, output_stride, stem_stride=4, rule=rule)
        stages = []
        in_channels, mid_channels = _STEM_CHANNELS, _STEM_CHANNELS
        for count, plan in zip(blocks, plans, strict=True):
            stages.append(_stage(in_channels, mid_channels, count, plan, stride_in_reduction=caffe_layout))
            in_channels, mid_channels = _EXPANSION * mid_channels, 2 * mid_channels
        self.low_level = stages[0]
        self.high_level = nn.Sequential(*stages[1:])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low-level features, features at the output stride)."""
        low_level: Tensor = self.low_level(self.stem(image))
        return low_level, self.high_level(low_level)


def _stage(
    in_channels: int, mid_channels: int, count: int, plan: StagePlan, *, stride_in_reduction: bool
) -> nn.Sequential:
    entry = Bottleneck(
        in_channels,
        mid_channels,
        stride=plan.stride,
        rate=plan.entry_rate,
        stride_in_reduction=stride_in_reduction,
    )
    rest = (
        Bottleneck(_EXPANSION * mid_channels, mid_channels, stride=1, rate=plan.rate, stride_in_reduction=False)
        for _ in range(1, count)
    )
    return nn.Sequential(entry, *rest)
