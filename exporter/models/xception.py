"""Aligned Xception-65 (DeepLabv3+, arXiv 1802.02611 §3.2, figure 4) without its classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from .backbone import plan_stages
from .layers import Activation, ConvBNAct

_STEM_CHANNELS: Final = (32, 64)
_ENTRY_CHANNELS: Final = (128, 256, 728)
_MIDDLE_BLOCKS: Final = 16
_EXIT_WIDTHS: Final = (728, 1024, 1024)
_LAST_WIDTHS: Final = (1536, 1536, 2048)
# Entry flow, middle flow, first block of the exit flow, its last convolutions.
_STAGE_STRIDES: Final = (2, 2, 2, 1, 2, 1)


@dataclass(frozen=True)
class XceptionStyle:
    """Variant of the network; implementations differ in these points.

    Attributes:
        activated_shortcut: shortcuts start behind the block's first ReLU, and the low-level features are the first
            block's output behind a ReLU. Otherwise shortcuts start before it, and the low-level features are those of
            the second block before its stride, not activated.
        activated_depthwise: ReLU between the halves of the last three convolutions, and none before them.
        dense_exit: the last convolution of the exit flow's first block is dilated like the two before it.
        bn_eps: epsilon of all batch normalizations.
    """

    activated_shortcut: bool
    activated_depthwise: bool
    dense_exit: bool
    bn_eps: float


#: The network of the paper, as its authors released it in TensorFlow.
TENSORFLOW_XCEPTION: Final = XceptionStyle(
    activated_shortcut=False, activated_depthwise=True, dense_exit=True, bn_eps=1e-3
)

#: That of jfzhang95.
JFZHANG95_XCEPTION: Final = XceptionStyle(
    activated_shortcut=True, activated_depthwise=False, dense_exit=False, bn_eps=1e-5
)


class XceptionBlock(nn.Module):
    """ReLU and separable convolution, three times, added to the shortcut: [N, in, h, w] → [N, widths[2], ·, ·].

    Args:
        widths: output channels of the three convolutions; the last one strides.
        rates: atrous rates of the three convolutions.
        activated_shortcut: see `XceptionStyle`.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        stride: int,
        rates: Sequence[int],
        activated_shortcut: bool,
        bn_eps: float,
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.first = separable(in_channels, first, rate=rates[0], bn_eps=bn_eps)
        self.second = separable(first, second, rate=rates[1], bn_eps=bn_eps)
        self.third = separable(second, third, stride=stride, rate=rates[2], bn_eps=bn_eps)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != third:
            self.shortcut = ConvBNAct(in_channels, third, stride=stride, activation=None, bn_eps=bn_eps)
        self.activated_shortcut = activated_shortcut

    def before_stride(self, x: Tensor) -> Tensor:
        """Features after the second convolution, [N, in, h, w] → [N, widths[1], h, w]."""
        features: Tensor = self.second(torch.relu(self.first(torch.relu(x))))
        return features

    def after_stride(self, x: Tensor, features: Tensor) -> Tensor:
        """Output of the block from its input and from what `before_stride` made of it."""
        residual: Tensor = self.third(torch.relu(features))
        shortcut: Tensor = self.shortcut(torch.relu(x) if self.activated_shortcut else x)
        return residual + shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, h, w] → [N, widths[2], h/stride, w/stride]."""
        return self.after_stride(x, self.before_stride(x))


class Xception65(nn.Module):
    """[N, 3, H, W] → (low-level features [N, 256 or 128, H/4, W/4], features [N, 2048, H/OS, W/OS]).

    The paper's text normalizes and activates after every depthwise convolution; its authors' code, which trained the
    published weights, activates there in the last three convolutions alone. This is the code's network.

    Args:
        output_stride: 8 or 16; later strides become atrous rates.
        style: variant of the network.
    """

    out_channels = _LAST_WIDTHS[-1]

    def __init__(self, output_stride: int = 16, *, style: XceptionStyle = TENSORFLOW_XCEPTION) -> None:
        super().__init__()
        self.style = style
        self.low_level_channels = _ENTRY_CHANNELS[0 if style.activated_shortcut else 1]
        first, second = _STEM_CHANNELS
        self.stem = nn.Sequential(
            ConvBNAct(3, first, 3, stride=2, bn_eps=style.bn_eps), ConvBNAct(first, second, 3, bn_eps=style.bn_eps)
        )
        *entry, middle, exit_plan, last_plan = plan_stages(_STAGE_STRIDES, output_stride, stem_stride=2)
        self.entry1, self.entry2, self.entry3 = (
            self._block(before, [width] * 3, stride=plan.stride, rates=[plan.entry_rate] * 3)
            for before, width, plan in zip((second, *_ENTRY_CHANNELS), _ENTRY_CHANNELS, entry, strict=False)
        )
        channels = _ENTRY_CHANNELS[-1]
        self.middle = nn.Sequential(
            *(self._block(channels, [channels] * 3, stride=1, rates=[middle.rate] * 3) for _ in range(_MIDDLE_BLOCKS))
        )
        exit_rate = exit_plan.entry_rate
        rates = [exit_rate, exit_rate, exit_rate if style.dense_exit else 1]
        self.exit = self._block(channels, _EXIT_WIDTHS, stride=exit_plan.stride, rates=rates)
        self.last = self._last_convolutions(last_plan.rate)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low-level features, features at the output stride)."""
        quarter = self.entry1(self.stem(image))
        refined = self.entry2.before_stride(quarter)
        low_level = torch.relu(quarter) if self.style.activated_shortcut else refined
        features = self.exit(self.middle(self.entry3(self.entry2.after_stride(quarter, refined))))
        return low_level, self.last(features if self.style.activated_depthwise else torch.relu(features))

    def _block(self, in_channels: int, widths: Sequence[int], *, stride: int, rates: Sequence[int]) -> XceptionBlock:
        style = self.style
        return XceptionBlock(
            in_channels,
            widths,
            stride=stride,
            rates=rates,
            activated_shortcut=style.activated_shortcut,
            bn_eps=style.bn_eps,
        )

    def _last_convolutions(self, rate: int) -> nn.Sequential:
        inner = nn.ReLU if self.style.activated_depthwise else None
        layers = []
        channels = _EXIT_WIDTHS[-1]
        for width in _LAST_WIDTHS:
            layers.append(
                separable(channels, width, rate=rate, inner=inner, activation=nn.ReLU, bn_eps=self.style.bn_eps)
            )
            channels = width
        return nn.Sequential(*layers)


def separable(
    in_channels: int,
    out_channels: int,
    *,
    stride: int = 1,
    rate: int,
    inner: Activation | None = None,
    activation: Activation | None = None,
    bn_eps: float,
) -> nn.Sequential:
    """Build a 3×3 depthwise and a 1×1 convolution, both normalized: [N, in, h, w] → [N, out, h/stride, w/stride].

    Args:
        inner: activation between the two, or None.
        activation: activation behind them, or None.
    """
    return nn.Sequential(
        ConvBNAct(
            in_channels,
            in_channels,
            3,
            stride=stride,
            rate=rate,
            groups=in_channels,
            activation=inner,
            bn_eps=bn_eps,
        ),
        ConvBNAct(in_channels, out_channels, activation=activation, bn_eps=bn_eps),
    )
