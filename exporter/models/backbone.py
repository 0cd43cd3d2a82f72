"""Interface of all backbones, and conversion of their strides to atrous rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

#: Rates of a stage after its stride became a rate. `graded`: the previous rate in the first block, because that one
#: still reads a map that is sampled as in training (exact by arXiv 1606.00915 §3.1; torchvision's ResNet), then the new
#: one. `uniform`: the new rate in all blocks (DeepLabv2's Caffe nets, segmentation-models-pytorch, and torchvision's
#: MobileNetV3). `delayed`: the previous rate in all blocks (jfzhang95's MobileNetV2). `entry`: the new rate in the
#: first block, 1 in the others (mmsegmentation's MobileNetV2). Weights trained with one rule are wrong with the others.
RateRule = Literal["graded", "uniform", "delayed", "entry"]


class Backbone(Protocol):
    """An `nn.Module` that maps [N, 3, H, W] to features at two resolutions.

    Attributes:
        low_level_channels: channels at stride 4.
        out_channels: channels at the output stride.
    """

    low_level_channels: int
    out_channels: int

    def __call__(self, image: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return (features [N, low_level_channels, H/4, W/4], features [N, out_channels, H/OS, W/OS])."""
        ...


class StagePlan(NamedTuple):
    """Stride of a stage's first spatial convolution, its atrous rate, and the rate of those that follow."""

    stride: int
    entry_rate: int
    rate: int


def plan_stages(
    strides: Sequence[int], output_stride: int, *, stem_stride: int, rule: RateRule = "graded"
) -> list[StagePlan]:
    """Keep strides while the total is at most `output_stride`; turn the later ones into atrous rates.

    Args:
        strides: stride of each stage in the classification network.
        output_stride: maximum total stride.
        stem_stride: total stride before the first stage.
        rule: rates of a stage that no longer strides.
    """
    plans = []
    total, rate = stem_stride, 1
    for stride in strides:
        before = rate
        if total * stride <= output_stride:
            total, step = total * stride, stride
        else:
            rate, step = rate * stride, 1
        plans.append(StagePlan(step, *_rates(before, rate, rule)))
    return plans


def _rates(before: int, after: int, rule: RateRule) -> tuple[int, int]:
    """Rate of a stage's first block, and of the others."""
    if rule == "graded":
        return before, after
    if rule == "delayed":
        return before, before
    return after, (after if rule == "uniform" else 1)
