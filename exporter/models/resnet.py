"""ResNet-50 and -101 (arXiv 1512.03385) with atrous rates in place of the last strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from .backbone import RateRule, plan_stages
from .layers import ConvBNAct

RESNET50_BLOCKS: Final = (3, 4, 6, 3)
RESNET101_BLOCKS: Final = (3, 4, 23, 3)

_STEM_CHANNELS: Final = 64
_STAGE_STRIDES: Final = (1, 2, 2, 2)
_EXPANSION: Final = 4
_MULTI_GRID: Final = (1, 2, 4)


@dataclass(frozen=True)
class ResNetStyle:
    """Variant of the network; implementations differ in these points.

    Attributes:
        rule: rates of an atrous stage; see `RateRule`.
        caffe_layout: layout of DeepLabv2's Caffe ResNet: the pool rounds its size up (H/4 + 1 for even sizes), and
            blocks stride in their 1×1 reduction.
        deep_stem: three 3×3 convolutions in place of the 7×7 one (ResNet-C, arXiv 1812.01187 §4).
        multi_grid: rates 1, 2, 4 of the three last blocks (arXiv 1706.05587 §3.2): `scaled` times the stage's rate, or
            `bare` as they are, and at output stride 16 alone.
    """

    rule: RateRule = "graded"
    caffe_layout: bool = False
    deep_stem: bool = False
    multi_grid: Literal["none", "scaled", "bare"] = "none"


#: torchvision's, which VainF has too.
TORCHVISION_RESNET: Final = ResNetStyle()
#: That of segmentation-models-pytorch.
SMP_RESNET: Final = ResNetStyle(rule="uniform")
#: DeepLabv2's, as kazuto1011 has it.
CAFFE_RESNET: Final = ResNetStyle(rule="uniform", caffe_layout=True)
#: kazuto1011's of DeepLabv3 and v3+.
CAFFE_GRID_RESNET: Final = ResNetStyle(rule="uniform", caffe_layout=True, multi_grid="scaled")
#: That of jfzhang95.
GRID_RESNET: Final = ResNetStyle(rule="uniform", multi_grid="scaled")
#: mmsegmentation's ResNetV1c: `d8` and `d16-mg124`.
MMSEG_RESNET: Final = ResNetStyle(deep_stem=True, multi_grid="bare")


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
        style: variant of the network.
    """

    low_level_channels = 256
    out_channels = 2048

    def __init__(
        self, blocks: Sequence[int], output_stride: int = 16, *, style: ResNetStyle = TORCHVISION_RESNET
    ) -> None:
        super().__init__()
        self.style = style
        self.stem = nn.Sequential(*_stem(style))
        plans = plan_stages(_STAGE_STRIDES, output_stride, stem_stride=4, rule=style.rule)
        rates = [(plan.entry_rate, *[plan.rate] * (count - 1)) for plan, count in zip(plans, blocks, strict=True)]
        if style.multi_grid == "scaled":
            rates[-1] = tuple(plans[-1].rate * rate for rate in _MULTI_GRID)
        elif style.multi_grid == "bare" and output_stride == 16:
            rates[-1] = _MULTI_GRID
        stages = []
        in_channels, mid_channels = _STEM_CHANNELS, _STEM_CHANNELS
        for plan, each in zip(plans, rates, strict=True):
            stages.append(
                _stage(in_channels, mid_channels, each, stride=plan.stride, stride_in_reduction=style.caffe_layout)
            )
            in_channels, mid_channels = _EXPANSION * mid_channels, 2 * mid_channels
        self.low_level = stages[0]
        self.high_level = nn.Sequential(*stages[1:])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low-level features, features at the output stride)."""
        low_level: Tensor = self.low_level(self.stem(image))
        return low_level, self.high_level(low_level)


def _stem(style: ResNetStyle) -> list[nn.Module]:
    """Convolutions to stride 2, and the pool to stride 4."""
    pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=style.caffe_layout)
    if not style.deep_stem:
        return [ConvBNAct(3, _STEM_CHANNELS, 7, stride=2), pool]
    half = _STEM_CHANNELS // 2
    return [ConvBNAct(3, half, 3, stride=2), ConvBNAct(half, half, 3), ConvBNAct(half, _STEM_CHANNELS, 3), pool]


def _stage(
    in_channels: int, mid_channels: int, rates: Sequence[int], *, stride: int, stride_in_reduction: bool
) -> nn.Sequential:
    """Build a block for each of `rates`; the first one strides."""
    blocks = []
    for index, rate in enumerate(rates):
        blocks.append(
            Bottleneck(
                in_channels if index == 0 else _EXPANSION * mid_channels,
                mid_channels,
                stride=stride if index == 0 else 1,
                rate=rate,
                stride_in_reduction=stride_in_reduction,
            )
        )
    return nn.Sequential(*blocks)
