"""Normalization of pixels to a network's input, and the three sets of constants of DeepLab weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Normalization:
    """Normalization of 0–255 pixels: `(pixel * scale - mean) / std`.

    Attributes:
        color_order: order of the network's input channels, and of `mean` and `std`.
    """

    color_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


#: torchvision's and segmentation-models-pytorch's constants.
IMAGENET: Final = Normalization("RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Caffe's VGG mean, as in DeepLab's released prototxt files.
CAFFE: Final = Normalization("BGR", 1.0, (104.008, 116.669, 122.675), (1.0, 1.0, 1.0))
#: TensorFlow's EfficientNet-Lite constants.
LITE: Final = Normalization("RGB", 1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))

NORMALIZATIONS: Final = {"imagenet": IMAGENET, "caffe": CAFFE, "lite": LITE}
