"""EfficientNet-Lite0: an EfficientNet without squeeze-excite and with ReLU6, made to be quantized.

Architecture: TensorFlow's `efficientnet/lite`; width and depth of EfficientNet-B0 (arXiv 1905.11946, table 1).
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from .backbone import plan_stages
from .inverted_residual import InvertedStage, inverted_residual_stages
from .layers import ConvBNAct

_BN_EPS: Final = 1e-3
_STEM_CHANNELS: Final = 32

_STAGES: Final = (
    InvertedStage(1, 16, 1, 1, 3),
    InvertedStage(6, 24, 2, 2, 3),
    InvertedStage(6, 40, 2, 2, 5),
    InvertedStage(6, 80, 3, 2, 3),
    InvertedStage(6, 112, 3, 1, 5),
    InvertedStage(6, 192, 4, 2, 5),
    InvertedStage(6, 320, 1, 1, 3),
)


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
        plans = plan_stages([stage.stride for stage in _STAGES], output_stride, stem_stride=2)
        stages = inverted_residual_stages(_STEM_CHANNELS, _STAGES, plans, bn_eps=_BN_EPS)
        self.low_level = nn.Sequential(*stages[:2])
        self.high_level = nn.Sequential(*stages[2:])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low-level features, features at the output stride)."""
        low_level: Tensor = self.low_level(self.stem(image))
        return low_level, self.high_level(low_level)
