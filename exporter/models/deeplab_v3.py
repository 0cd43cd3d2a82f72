"""DeepLabv3 (arXiv 1706.05587): atrous spatial pyramid pooling with image-level features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .layers import Activation, ConvBNAct, ImagePooling, SeparableConv

_DROPOUT: Final = 0.5


@dataclass(frozen=True)
class PyramidStyle:
    """Variant of the pyramid; implementations differ in these points.

    Attributes:
        channels: channels of every branch, and of the result.
        separable: depthwise-separable branches, as in DeepLabv3+.
        inner_norm: see `SeparableConv`.
        pooling_first: the image-level feature comes before the other branches in the concatenation, not after them.
        project_kernel: height and width of the kernel that projects the concatenation.
        activation: activation of all its convolutions.
    """

    channels: int = 256
    separable: bool = False
    inner_norm: bool = True
    pooling_first: bool = False
    project_kernel: int = 1
    activation: Activation = nn.ReLU


#: The pyramid of the paper (arXiv 1706.05587 §3.3), as torchvision has it.
PLAIN_PYRAMID: Final = PyramidStyle()
#: The same of separable convolutions (arXiv 1802.02611 §3.1), as the authors' TensorFlow code has it.
SEPARABLE_PYRAMID: Final = PyramidStyle(separable=True, pooling_first=True)

#: mmsegmentation's.
MMSEG_PYRAMID: Final = PyramidStyle(channels=512, pooling_first=True, project_kernel=3)
#: Hugging Face's of MobileNetV2, which has no atrous branches.
HF_PYRAMID: Final = PyramidStyle(pooling_first=True)


class ASPP(nn.Module):
    """1×1, 3×3 atrous branches and image pooling, concatenated and projected: [N, in, h, w] → [N, channels, h, w].

    Args:
        rates: atrous rates of the 3×3 branches; (6, 12, 18) at output stride 16, doubled at 8 (§4.1).
        style: variant of the pyramid.
    """

    def __init__(self, in_channels: int, *, rates: Sequence[int], style: PyramidStyle = PLAIN_PYRAMID) -> None:
        super().__init__()
        channels, activation = style.channels, style.activation
        branches: list[nn.Module] = [ConvBNAct(in_channels, channels, activation=activation)]
        for rate in rates:
            if style.separable:
                branches.append(
                    SeparableConv(in_channels, channels, rate=rate, activation=activation, inner_norm=style.inner_norm)
                )
            else:
                branches.append(ConvBNAct(in_channels, channels, 3, rate=rate, activation=activation))
        # The order of the concatenation is part of the weights.
        branches.insert(
            0 if style.pooling_first else len(branches), ImagePooling(in_channels, channels, activation=activation)
        )
        self.branches = nn.ModuleList(branches)
        self.project = nn.Sequential(
            ConvBNAct(len(branches) * channels, channels, style.project_kernel, activation=activation),
            nn.Dropout(_DROPOUT),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Concatenate the branches and project them to the output channels."""
        projected: Tensor = self.project(torch.cat([branch(features) for branch in self.branches], dim=1))
        return projected


class DeepLabV3(nn.Module):
    """[N, 3, H, W] → logits [N, classes, H/OS, W/OS].

    Args:
        rates: rates of the pyramid's atrous branches; see `aspp_rates`.
        pyramid: variant of the pyramid.
        refined: a 3×3 convolution between the pyramid and the classifier; not in the paper, but in torchvision and
            segmentation-models-pytorch.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        rates: Sequence[int],
        pyramid: PyramidStyle = PLAIN_PYRAMID,
        refined: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = ASPP(backbone.out_channels, rates=rates, style=pyramid)
        self.head: nn.Module = ConvBNAct(pyramid.channels, pyramid.channels, 3) if refined else nn.Identity()
        self.classifier = nn.Conv2d(pyramid.channels, num_classes, 1)
        self.pyramid = pyramid

    def forward(self, image: Tensor) -> Tensor:
        """Return coarse logits."""
        _, features = self.backbone(image)
        logits: Tensor = self.classifier(self.head(self.aspp(features)))
        return logits


def aspp_rates(output_stride: int) -> tuple[int, int, int]:
    """Rates that cover the same image area at either output stride (arXiv 1706.05587 §4.1)."""
    return (6, 12, 18) if output_stride == 16 else (12, 24, 36)
