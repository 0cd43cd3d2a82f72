"""The inverted residual block (MobileNetV2, arXiv 1801.04381 §3.3) that the mobile backbones share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from .backbone import StagePlan
from .layers import Activation, ConvBNAct, SamePadded

#: Place and size of the zeros around the map that a depthwise convolution reads. `depthwise`: around its own input.
#: `expansion`: around the block's, so that what it reads at the border is what the expansion makes of zeros (jfzhang95,
#: VainF). `same`: around its own input as TensorFlow pads, in the stem too: at stride 2 an even length is padded at its
#: end alone.
Padding = Literal["depthwise", "expansion", "same"]


class InvertedStage(NamedTuple):
    """Blocks that share their shape; only the first changes channels and stride."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel_size: int = 3


class SqueezeExcite(nn.Module):
    """Rescales each channel by a gate computed from its global average (MobileNetV3, arXiv 1905.02244 §5.3)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] → [N, C, h, w]."""
        gate: Tensor = self.gate(x)
        return gate * x


@dataclass(frozen=True)
class Depthwise:
    """The depthwise convolution of a block.

    Attributes:
        kernel_size: height and width of the kernel.
        stride: 1 or 2.
        rate: of the dilation.
        padding: see `Padding`.
    """

    kernel_size: int
    stride: int
    rate: int
    padding: Padding = "depthwise"


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise convolution, linear 1×1 projection, and a shortcut where the shapes allow one.

    Args:
        hidden: channels of the depthwise convolution; equal to `in_channels`, there is no expansion.
        depthwise: what that convolution looks at.
        squeezed: channels inside the squeeze-and-excite gate; None leaves the gate out.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        depthwise: Depthwise,
        activation: Activation,
        bn_eps: float,
        squeezed: int | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(ConvBNAct(in_channels, hidden, activation=activation, bn_eps=bn_eps))
        spatial = ConvBNAct(
            hidden,
            hidden,
            depthwise.kernel_size,
            stride=depthwise.stride,
            rate=depthwise.rate,
            groups=hidden,
            activation=activation,
            bn_eps=bn_eps,
        )
        self.padding = 0
        if depthwise.padding == "expansion":
            self.padding = depthwise.rate * (depthwise.kernel_size - 1) // 2
            spatial.unpad()
        layers.append(SamePadded(spatial) if depthwise.padding == "same" and depthwise.stride == 2 else spatial)
        if squeezed is not None:
            layers.append(SqueezeExcite(hidden, squeezed))
        layers.append(ConvBNAct(hidden, out_channels, activation=None, bn_eps=bn_eps))
        self.layers = nn.Sequential(*layers)
        self.has_shortcut = depthwise.stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, h, w] → [N, out, h/stride, w/stride]."""
        y: Tensor = self.layers(functional.pad(x, [self.padding] * 4) if self.padding else x)
        return x + y if self.has_shortcut else y


def inverted_residual_stages(
    in_channels: int,
    stages: Sequence[InvertedStage],
    plans: Sequence[StagePlan],
    *,
    bn_eps: float,
    padding: Padding = "depthwise",
) -> list[nn.Sequential]:
    """Build one `nn.Sequential` of ReLU6 blocks per stage, strides and rates as planned."""
    built = []
    channels = in_channels
    for stage, plan in zip(stages, plans, strict=True):
        blocks = []
        for index in range(stage.blocks):
            is_entry = index == 0
            blocks.append(
                InvertedResidual(
                    channels,
                    channels * stage.expansion,
                    stage.channels,
                    depthwise=Depthwise(
                        stage.kernel_size,
                        stride=plan.stride if is_entry else 1,
                        rate=plan.entry_rate if is_entry else plan.rate,
                        padding=padding,
                    ),
                    activation=nn.ReLU6,
                    bn_eps=bn_eps,
                )
            )
            channels = stage.channels
        built.append(nn.Sequential(*blocks))
    return built
