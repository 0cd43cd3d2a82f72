"""Reference DeepLab models: plain `nn.Module`s that map images [N, 3, H, W] to coarse logits [N, C, h, w]."""

from __future__ import annotations

from torch import nn

from .deeplab_v3plus import DeepLabV3Plus
from .efficientnet_lite import EfficientNetLite0


def create_model(name: str, *, num_classes: int, output_stride: int = 16) -> nn.Module:
    return DeepLabV3Plus(EfficientNetLite0(output_stride), num_classes, output_stride=output_stride, decoder_channels=128, activation=nn.ReLU6)
