"""MobileNetV2 (arXiv 1801.04381) and MobileNetV3-Large (arXiv 1905.02244) without their classifiers."""

from __future__ import annotations

from typing import Final, NamedTuple

from torch import Tensor, nn

from .backbone import RateRule, plan_stages
from .inverted_residual import Depthwise, InvertedResidual, InvertedStage, inverted_residual_stages
from .layers import ConvBNAct

# arXiv 1801.04381, table 2.
_V2_STEM_CHANNELS: Final = 32
_V2_BN_EPS: Final = 1e-5
_V2_STAGES: Final = (
    InvertedStage(1, 16, 1, 1),
    InvertedStage(6, 24, 2, 2),
    InvertedStage(6, 32, 3, 2),
    InvertedStage(6, 64, 4, 2),
    InvertedStage(6, 96, 3, 1),
    InvertedStage(6, 160, 3, 2),
    InvertedStage(6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """[N, 3, H, W] → (low-level features [N, 24, H/4, W/4], features [N, 1280, H/OS, W/OS]).

    The last 1×1 convolution (320 → 1280) is part of the features, as in segmentation-models-pytorch; its DeepLabs are
    where trained weights come from, and they dilate by the `uniform` rule.
    """

    low_level_channels = 24
    out_channels = 1280

    def __init__(self, output_stride: int = 16, *, rule: RateRule = "uniform") -> None:
        super().__init__()
        self.stem = ConvBNAct(3, _V2_STEM_CHANNELS, 3, stride=2, activation=nn.ReLU6)
        plans = plan_stages([stage.stride for stage in _V2_STAGES], output_stride, stem_stride=2, rule=rule)
        stages = inverted_residual_stages(_V2_STEM_CHANNELS, _V2_STAGES, plans, bn_eps=_V2_BN_EPS)
        self.low_level = nn.Sequential(*stages[:2])
        last = ConvBNAct(_V2_STAGES[-1].channels, self.out_channels, activation=nn.ReLU6)
        self.high_level = nn.Sequential(*stages[2:], last)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low-level features, features at the output stride)."""
        low_level: Tensor = self.low_level(self.stem(image))
        return low_level, self.high_level(low_level)


class _V3Block(NamedTuple):
    hidden: int
    channels: int
    kernel_size: int
    squeeze: bool
    hard_swish: bool


class _V3Stage(NamedTuple):
    stride: int
    blocks: tuple[_V3Block, ...]


# arXiv 1905.02244, table 1; a stage begins where the table strides.
_V3_STEM_CHANNELS: Final = 16
_V3_BN_EPS: Final = 1e-3
_V3_STAGES: Final = (
    _V3Stage(1, (_V3Block(16, 16, 3, False, False),)),
    _V3Stage(2, (_V3Block(64, 24, 3, False, False), _V3Block(72, 24, 3, False, False))),
    _V3Stage(
        2,
        (_V3Block(72, 40, 5, True, False), _V3Block(120, 40, 5, True, False), _V3Block(120, 40, 5, True, False)),
    ),
    _V3Stage(
        2,
        (
            _V3Block(240, 80, 3, False, True),
            _V3Block(200, 80, 3, False, True),
            _V3Block(184, 80, 3, False, True),
            _V3Block(184, 80, 3, False, True),
            _V3Block(480, 112, 3, True, True),
            _V3Block(672, 112, 3, True, True),
        ),
    ),
    _V3Stage(
        2,
        (_V3Block(672, 160, 5, True, True), _V3Block(960, 160, 5, True, True), _V3Block(960, 160, 5, True, True)),
    ),
)


class MobileNetV3Large(nn.Module):
    """[N, 3, H, W] → (low-level features [N, 24, H/4, W/4], features [N, 960, H/OS, W/OS]).

    The rates follow the `uniform` rule of torchvision, whose trained DeepLab this is the backbone of.
    """

    low_level_channels = 24
    out_channels = 960

    def __init__(self, output_stride: int = 16) -> None:
        super().__init__()
        self.stem = ConvBNAct(3, _V3_STEM_CHANNELS, 3, stride=2, activation=nn.Hardswish, bn_eps=_V3_BN_EPS)
        plans = plan_stages([stage.stride for stage in _V3_STAGES], output_stride, stem_stride=2, rule="uniform")
        stages: list[nn.Module] = []
        channels = _V3_STEM_CHANNELS
        for stage, plan in zip(_V3_STAGES, plans, strict=True):
            blocks = []
            for index, block in enumerate(stage.blocks):
                blocks.append(_v3_block(channels, block, stride=plan.stride if index == 0 else 1, rate=plan.rate))
                channels = block.channels
            stages.append(nn.Sequential(*blocks))
        self.low_level = nn.Sequential(*stages[:2])
        last = ConvBNAct(channels, self.out_channels, activation=nn.Hardswish, bn_eps=_V3_BN_EPS)
        self.high_level = nn.Sequential(*stages[2:], last)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low-level features, features at the output stride)."""
        low_level: Tensor = self.low_level(self.stem(image))
        return low_level, self.high_level(low_level)


def _v3_block(in_channels: int, block: _V3Block, *, stride: int, rate: int) -> InvertedResidual:
    return InvertedResidual(
        in_channels,
        block.hidden,
        block.channels,
        depthwise=Depthwise(block.kernel_size, stride, rate),
        activation=nn.Hardswish if block.hard_swish else nn.ReLU,
        bn_eps=_V3_BN_EPS,
        squeezed=_nearest_multiple_of_8(block.hidden // 4) if block.squeeze else None,
    )


def _nearest_multiple_of_8(channels: int) -> int:
    nearest = (channels + 4) // 8 * 8
    # The reference implementation rounds up where rounding to nearest would lose more than a tenth.
    return nearest if nearest >= 0.9 * channels else nearest + 8
