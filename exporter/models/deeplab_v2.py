"""DeepLabv2 (arXiv 1606.00915): large-field-of-view and pyramid-pooling heads on VGG-16 and ResNet-101."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Final

from torch import Tensor, nn

from .backbone import Backbone

LARGE_FOV_RATES: Final = (12,)
ASPP_S_RATES: Final = (2, 4, 8, 12)
ASPP_L_RATES: Final = (6, 12, 18, 24)

_FC_CHANNELS: Final = 1024
# (convolutions, channels, rate, stride of the pool that follows): DeepLab's prototxt keeps pool4 and pool5 at stride 1.
_VGG16_STAGES: Final = ((2, 64, 1, 2), (2, 128, 1, 2), (3, 256, 1, 2), (3, 512, 1, 1), (3, 512, 2, 1))


class ScorePyramid(nn.Module):
    """Branches that each give scores, summed: [N, in, h, w] → [N, classes, h, w] (arXiv 1606.00915 §3.2, figure 4)."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Sum of the branch scores."""
        scores: Tensor = reduce(add, [branch(features) for branch in self.branches])
        return scores


class DeepLabVGG16(nn.Module):
    """VGG-16 with fc6-fc7-fc8 branches: [N, 3, H, W] → logits [N, classes, h, w] at output stride 8.

    Pools round up: both H = 8k and H = 8k + 1 give h = k + 1; at 8k + 1 the corners of image and logits coincide.

    Args:
        rates: rate of fc6, one branch each: `LARGE_FOV_RATES`, `ASPP_S_RATES` or `ASPP_L_RATES` (§4.1.2, table 3).
    """

    def __init__(self, num_classes: int, *, rates: Sequence[int]) -> None:
        super().__init__()
        self.features = _vgg16_features()
        channels = _VGG16_STAGES[-1][1]
        self.pyramid = ScorePyramid([_fc_branch(channels, num_classes, rate) for rate in rates])

    def forward(self, image: Tensor) -> Tensor:
        """Return coarse logits."""
        logits: Tensor = self.pyramid(self.features(image))
        return logits


class DeepLabV2(nn.Module):
    """[N, 3, H, W] → logits [N, classes, H/8, W/8]: one 3×3 classifier per rate on the backbone, summed (§4.1.2)."""

    def __init__(self, backbone: Backbone, num_classes: int, *, rates: Sequence[int] = ASPP_L_RATES) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = ScorePyramid(
            [nn.Conv2d(backbone.out_channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates]
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return coarse logits."""
        _, features = self.backbone(image)
        logits: Tensor = self.pyramid(features)
        return logits


def _vgg16_features() -> nn.Sequential:
    layers: list[nn.Module] = []
    in_channels = 3
    for convolutions, channels, rate, pool_stride in _VGG16_STAGES:
        for _ in range(convolutions):
            layers += [nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate), nn.ReLU()]
            in_channels = channels
        # Caffe rounds pooled sizes up; 3×3 with padding 1 keeps the samples of all stages aligned at 8k + 1 pixels.
        layers.append(nn.MaxPool2d(3, stride=pool_stride, padding=1, ceil_mode=True))
    return nn.Sequential(*layers)


def _fc_branch(in_channels: int, num_classes: int, rate: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, _FC_CHANNELS, 3, padding=rate, dilation=rate),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(_FC_CHANNELS, _FC_CHANNELS, 1),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(_FC_CHANNELS, num_classes, 1),
    )
