"""Normalization of pixels to a network's input: the constants of DeepLab weights, and those that a file states."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

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

#: x / 127.5 − 1, as TensorFlow's DeepLab and its MobileNets have it.
TENSORFLOW: Final = Normalization("RGB", 1.0, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
#: x / 255, blue first, as Apple's MobileViT has it.
APPLE: Final = Normalization("BGR", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
#: ImageNet's constants in grey levels, as the configurations of mmsegmentation have them.
MMSEG: Final = Normalization("RGB", 1.0, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
#: Pixels as they are, for networks that normalize them themselves.
NO_NORMALIZATION: Final = Normalization("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

NORMALIZATIONS: Final = {
    "imagenet": IMAGENET,
    "caffe": CAFFE,
    "lite": LITE,
    "tensorflow": TENSORFLOW,
    "mmseg": MMSEG,
    "none": NO_NORMALIZATION,
}


def find_normalization(name: str) -> Normalization:
    """Find a normalization by its name in `NORMALIZATIONS`, or read it from a `preprocessor_config.json`.

    Raises:
        ExportError: neither, or the file does not state one.
    """
    if name in NORMALIZATIONS:
        return NORMALIZATIONS[name]
    if Path(name).suffix == ".json":
        return read_preprocessor(Path(name))
    known = ", ".join(NORMALIZATIONS)
    raise ExportError(f"unknown normalization {name!r}; expected {known}, or a preprocessor_config.json")


def read_preprocessor(path: Path) -> Normalization:
    """Read the normalization of an image processor of transformers from its `preprocessor_config.json`.

    Raises:
        ExportError: the file cannot be read, or lacks `image_mean` and `image_std` although it normalizes.
    """
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ExportError(f"cannot read {path}: {exc}") from exc
    if not isinstance(stated, dict):
        raise ExportError(f"{path} holds a {type(stated).__name__}; expected the object of an image processor")
    scale = stated.get("rescale_factor", 1 / _WHITE) if stated.get("do_rescale", True) else 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # MobileViT's processor only rescales; it has no mean, and says no `do_normalize`.
    if stated.get("do_normalize", "image_mean" in stated):
        mean, std = (_three(stated, name, path) for name in ("image_mean", "image_std"))
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise ExportError(f"{path}: rescale_factor is {scale!r}; expected a number")
    return Normalization("BGR" if stated.get("do_flip_channel_order") else "RGB", float(scale), mean, std)


def parse_normalization(
    mean: str | None, std: str | None, scale: float | None, color_order: Literal["RGB", "BGR"] | None
) -> Normalization:
    """Make a normalization of the numbers of a command line.

    Args:
        mean: three numbers with commas, in the order of the channels; 0,0,0 when None.
        std: likewise; 1,1,1 when None.
        scale: factor of pixels before; when None, 1/255 if every mean and standard deviation is at most 1, else 1.
        color_order: RGB when None.

    Raises:
        ExportError: a text is not three numbers, or `Normalization` refuses them.
    """
    means = _numbers("mean", mean) if mean else (0.0, 0.0, 0.0)
    stds = _numbers("std", std) if std else (1.0, 1.0, 1.0)
    if scale is None:
        scale = 1 / _WHITE if max(*means, *stds) <= 1 else 1.0
    return Normalization(color_order or "RGB", scale, means, stds)


def _numbers(name: str, text: str) -> tuple[float, float, float]:
    try:
        first, second, third = map(float, text.split(","))
    except ValueError as exc:
        raise ExportError(f"{name}={text!r} is not three numbers; expected for example 123.675,116.28,103.53") from exc
    return first, second, third


def _three(stated: dict[str, Any], name: str, path: Path) -> tuple[float, float, float]:
    values = stated.get(name)
    if isinstance(values, list) and len(values) == 3 and all(isinstance(value, int | float) for value in values):
        return float(values[0]), float(values[1]), float(values[2])
    raise ExportError(f"{path}: {name} is {values!r}; expected three numbers")
