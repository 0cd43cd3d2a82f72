"""MobileNetV2 (arXiv 1801.04381) and MobileNetV3-Large (arXiv 1905.02244) without their classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from torch import Tensor, nn

from .backbone import RateRule, plan_stages
from .inverted_residual import Depthwise, InvertedResidual, InvertedStage, Padding, inverted_residual_stages
from .layers import ConvBNAct, SamePadded

# arXiv 1801.04381, table 2.
_V2_STEM_CHANNELS: Final = 32
_V2_LAST_CHANNELS: Final = 1280
_V2_STAGES: Final = (
    InvertedStage(1, 16, 1, 1),
    InvertedStage(6, 24, 2, 2),
    InvertedStage(6, 32, 3, 2),
    InvertedStage(6, 64, 4, 2),
    InvertedStage(6, 96, 3, 1),
    InvertedStage(6, 160, 3, 2),
    InvertedStage(6, 320, 1, 1),
)


@dataclass(frozen=True)
class MobileNetV2Style:
    """Variant of MobileNetV2; implementations differ in these points.

    Attributes:
        rule: rates of an atrous stage; see `RateRule`.
        padding: padding of the depthwise convolutions; see `Padding`.
        bn_eps: epsilon of all batch normalizations.
        padded_stem: the first convolution is padded; without that, it halves 64 to 31.
        last_convolution: the last 1×1 convolution (320 → 1280) is part of the features.
    """

    rule: RateRule
    padding: Padding = "depthwise"
    bn_eps: float = 1e-5
    padded_stem: bool = True
    last_convolution: bool = False


#: That of segmentation-models-pytorch.
SMP_MOBILENET: Final = MobileNetV2Style("uniform", last_convolution=True)
#: That of VainF.
VAINF_MOBILENET: Final = MobileNetV2Style("graded", "expansion", padded_stem=False)
#: That of jfzhang95.
JFZHANG95_MOBILENET: Final = MobileNetV2Style("delayed", "expansion")
#: That of mmsegmentation.
MMSEG_MOBILENET: Final = MobileNetV2Style("entry")
#: Hugging Face's, which computes what TensorFlow's does.
HF_MOBILENET: Final = MobileNetV2Style("graded", "same", 1e-3)


class MobileNetV2(nn.Module):
    """[N, 3, H, W] → (low-level features [N, 24, H/4, W/4], features [N, 1280 or 320, H/OS, W/OS]).

    Args:
        style: variant of the network.
    """

    low_level_channels = 24

    def __init__(self, output_stride: int = 16, *, style: MobileNetV2Style = SMP_MOBILENET) -> None:
        super().__init__()
        self.style = style
        stem = ConvBNAct(3, _V2_STEM_CHANNELS, 3, stride=2, activation=nn.ReLU6, bn_eps=style.bn_eps)
        if not style.padded_stem:
            stem.unpad()
        self.stem = SamePadded(stem) if style.padding == "same" else stem
        plans = plan_stages([stage.stride for stage in _V2_STAGES], output_stride, stem_stride=2, rule=style.rule)
        stages: list[nn.Module] = [
            *inverted_residual_stages(_V2_STEM_CHANNELS, _V2_STAGES, plans, bn_eps=style.bn_eps, padding=style.padding)
        ]
        self.out_channels = _V2_STAGES[-1].channels
        if style.last_convolution:
            stages.append(ConvBNAct(self.out_channels, _V2_LAST_CHANNELS, activation=nn.ReLU6, bn_eps=style.bn_eps))
            self.out_channels = _V2_LAST_CHANNELS
        self.low_level = nn.Sequential(*stages[:2])
        self.high_level = nn.Sequential(*stages[2:])

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
