"""Normalization of pixels to a network's input, and the sets of constants of DeepLab weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ..errors import ExportError

#: Largest value of a pixel.
_WHITE: Final = 255
#: Slack for constants that were rounded, such as scale=0.0039 for 1/255.
_ROUNDING: Final = 0.02


@dataclass(frozen=True)
class Normalization:
    """Normalization of 0–255 pixels: `(pixel * scale - mean) / std`.

    Attributes:
        color_order: order of the network's input channels, and of `mean` and `std`.

    Raises:
        ExportError: scaled pixels cannot have this mean or standard deviation, so that the units must differ.
    """

    color_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ExportError(f"the scale of pixels must be positive and finite; got {self.scale}")
        largest = _WHITE * self.scale
        self._check_reach("mean", self.mean, 0.0, largest)
        # One grey level at least: pixels that differ by less than that are all the same.
        self._check_reach("std", self.std, self.scale, largest)

    def _check_reach(self, name: str, values: tuple[float, float, float], low: float, high: float) -> None:
        if all(low * (1 - _ROUNDING) <= value <= high * (1 + _ROUNDING) for value in values):
            return
        raise ExportError(
            f"{name}={list(values)} cannot be that of pixels with scale={self.scale:.4g}: they lie between 0 and "
            f"{high:.4g} then, so {name} must lie between {low:.4g} and {high:.4g}. State mean and std in units of "
            "scaled pixels: for constants of 0 to 1 use scale=1/255, for constants of 0 to 255 use scale=1."
        )


#: torchvision's and segmentation-models-pytorch's constants.
IMAGENET: Final = Normalization("RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Caffe's VGG mean, as in DeepLab's released prototxt files.
CAFFE: Final = Normalization("BGR", 1.0, (104.008, 116.669, 122.675), (1.0, 1.0, 1.0))
#: TensorFlow's EfficientNet-Lite constants.
LITE: Final = Normalization("RGB", 1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
#: TensorFlow's DeepLab and Hugging Face's MobileNetV2: pixels from -1 to 1.
SYMMETRIC: Final = Normalization("RGB", 1.0, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))

NORMALIZATIONS: Final = {"imagenet": IMAGENET, "caffe": CAFFE, "lite": LITE, "symmetric": SYMMETRIC}
