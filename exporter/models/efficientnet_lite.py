"""EfficientNet-Lite0: an EfficientNet without squeeze-excite and with ReLU6, made to be quantized.

Architecture: TensorFlow's `efficientnet/lite`; width and depth of EfficientNet-B0 (arXiv 1905.11946, table 1).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from torch import Tensor, nn

from .layers import ConvBNAct

_BN_EPS: Final = 1e-3
_STEM_CHANNELS: Final = 32


class _Stage(NamedTuple):
    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel_size: int


_STAGES: Final = (
    _Stage(1, 16, 1, 1, 3),
    _Stage(6, 24, 2, 2, 3),
    _Stage(6, 40, 2, 2, 5),
    _Stage(6, 80, 3, 2, 3),
    _Stage(6, 112, 3, 1, 5),
    _Stage(6, 192, 4, 2, 5),
    _Stage(6, 320, 1, 1, 3),
)


class _InvertedResidual(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, kernel_size: int, stride: int, rate: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvBNAct(in_channels, hidden, activation=nn.ReLU6, bn_eps=_BN_EPS))
        layers.append(
            ConvBNAct(
                hidden,
                hidden,
                kernel_size,
                stride=stride,
                rate=rate,
                groups=hidden,
                activation=nn.ReLU6,
                bn_eps=_BN_EPS,
            )
        )
        layers.append(ConvBNAct(hidden, out_channels, activation=None, bn_eps=_BN_EPS))
        self.layers = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


class EfficientNetLite0(nn.Module):
    """[N, 3, H, W] → (low-level features [N, 24, H/4, W/4], features [N, 320, H/OS, W/OS]).

    Args:
        output_stride: 8 or 16; later strides become atrous rates (arXiv 1606.00915 §3.1).
    """

    low_level_channels = 24
    out_channels = 320

    def __init__(self, output_stride: int = 16) -> None:
        super().__init__()
        self.stem = ConvBNAct(3, _STEM_CHANNELS, 3, stride=2, activation=nn.ReLU6, bn_eps=_BN_EPS)
        stages: list[nn.Module] = []
        channels, stride, rate = _STEM_CHANNELS, 2, 1
        for stage in _STAGES:
            # The convolution that would have strided still sees the dense map: only those after it are atrous.
            first_stride, first_rate = stage.stride, rate
            if stride * stage.stride > output_stride:
                first_stride, rate = 1, rate * stage.stride
            else:
                stride *= stage.stride
            blocks = []
            for index in range(stage.blocks):
                blocks.append(
                    _InvertedResidual(
                        channels,
                        stage.channels,
                        expansion=stage.expansion,
                        kernel_size=stage.kernel_size,
                        stride=first_stride if index == 0 else 1,
                        rate=first_rate if index == 0 else rate,
                    )
                )
                channels = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.low_level = nn.Sequential(*stages[:2])
        self.high_level = nn.Sequential(*stages[2:])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        low_level: Tensor = self.low_level(self.stem(image))
        return low_level, self.high_level(low_level)
