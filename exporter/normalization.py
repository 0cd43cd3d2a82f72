"""Normalization of pixels to a network's input: the constants of DeepLab weights, and those that a file states."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from ..arguments import check_arguments, check_fields
from ..bands import Bands
from ..errors import ExportError

#: Largest value of a pixel.
_WHITE: Final = 255
#: Slack for constants that were rounded, such as scale=0.0039 for 1/255.
_ROUNDING: Final = 0.02


@dataclass(frozen=True)
class Normalization:
    """Normalization of pixels, 0–255 where they are RGB: `(pixel * scale - mean) / std`.

    Attributes:
        color_order: order of the network's input channels, and of `mean` and `std`; bands have their own: RGB.
        mean, std: a value for each channel.
        bands: bands of the images; None for RGB in bytes.

    Raises:
        ExportError: there is not one value a channel, or scaled pixels cannot have this mean or standard deviation, so
            that the units must differ.
    """

    color_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bands: Bands | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.scale < float("inf"):
            raise ExportError(f"the scale of pixels must be positive and finite; got {self.scale}")
        channels = 3 if self.bands is None else len(self.bands.names)
        if not len(self.mean) == len(self.std) == channels:
            raise ExportError(
                f"a mean and a standard deviation for each of {channels} channels, please; got {list(self.mean)} and "
                f"{list(self.std)}"
            )
        if self.bands is not None:
            self._check_bands(self.bands)
            return
        largest = _WHITE * self.scale
        # No images are that dark: a mean of 0.485 is one of pixels from 0 to 1.
        if any(self.mean) and max(self.mean) < self.scale:
            self._refuse("mean", self.mean, self.scale, largest)
        self._check_reach("mean", self.mean, 0.0, largest)
        # One grey level at least: pixels that differ by less than that are all the same.
        self._check_reach("std", self.std, self.scale, largest)

    @property
    def is_none(self) -> bool:
        """True if it leaves pixels as they are."""
        return self.scale == 1 and not any(self.mean) and set(self.std) == {1.0}

    def _check_bands(self, bands: Bands) -> None:
        if self.color_order != "RGB":
            raise ExportError(
                "bands are in the order of the network's channels: color_order says nothing, leave it out"
            )
        for name, band, mean, std in zip(bands.names, bands.ranges, self.mean, self.std, strict=True):
            low, high = (value * self.scale for value in band)
            slack = _ROUNDING * (high - low)
            if min(0.0, low) - slack <= mean <= high + slack and 0 < std <= max(1.0, high - low + slack):
                continue
            raise ExportError(
                f"mean={mean:.4g}, std={std:.4g} cannot be those of band {name!r}, whose values lie between {low:.4g} "
                f"and {high:.4g} with scale={self.scale:.4g}. State them in units of scaled values, or the band's range"
            )

    def _check_reach(self, name: str, values: tuple[float, ...], low: float, high: float) -> None:
        if not all(low * (1 - _ROUNDING) <= value <= high * (1 + _ROUNDING) for value in values):
            self._refuse(name, values, low, high)

    def _refuse(self, name: str, values: tuple[float, ...], low: float, high: float) -> NoReturn:
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


def normalize_ranges(bands: Bands) -> Normalization:
    """Make the normalization that maps the range of each band to 0 to 1."""
    low, spread = zip(*((low, high - low) for low, high in bands.ranges), strict=True)
    return Normalization("RGB", 1.0, low, spread, bands)


@check_arguments
def find_normalization(name: str, bands: Bands | None = None) -> Normalization:
    """Find a normalization by its name in `NORMALIZATIONS`, or read it from a `preprocessor_config.json`.

    Of bands there is `none` alone, which leaves them as they are.

    Raises:
        ExportError: neither, or the file does not state one.
    """
    if bands is not None:
        if name != "none":
            raise ExportError(
                f"normalization {name!r} is for RGB in bytes; for {bands} state --mean and --std, or none"
            )
        count = len(bands.names)
        return Normalization("RGB", 1.0, (0.0,) * count, (1.0,) * count, bands)
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
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    # MobileViT's processor only rescales; it has no mean, and says no `do_normalize`.
    if stated.get("do_normalize", "image_mean" in stated):
        mean, std = (_three(stated, name, path) for name in ("image_mean", "image_std"))
    if stated.get("rescale_offset"):  # of EfficientNet's and ViViT's processors: pixels · scale − 1
        mean = (mean[0] + 1, mean[1] + 1, mean[2] + 1)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise ExportError(f"{path}: rescale_factor is {scale!r}; expected a number")
    return Normalization("BGR" if stated.get("do_flip_channel_order") else "RGB", float(scale), mean, std)


def parse_normalization(
    mean: str | None,
    std: str | None,
    scale: float | None,
    color_order: Literal["RGB", "BGR"] | None,
    bands: Bands | None = None,
) -> Normalization:
    """Make a normalization of the numbers of a command line.

    Args:
        mean: numbers with commas, in the order of the channels; 0 each when None.
        std: likewise; 1 each when None.
        scale: factor of pixels before; when None, 1 / the largest value of a pixel if every mean and standard deviation
            is at most 1, else 1.
        color_order: RGB when None.
        bands: bands of the images; None for RGB in bytes.

    Raises:
        ExportError: a text is not one number a channel, or `Normalization` refuses them.
    """
    channels = 3 if bands is None else len(bands.names)
    means = _numbers("mean", mean, channels) if mean else (0.0,) * channels
    stds = _numbers("std", std, channels) if std else (1.0,) * channels
    if scale is None:
        largest = _WHITE if bands is None else max(high for _, high in bands.ranges)
        scale = 1 / largest if max(*means, *stds) <= 1 < largest else 1.0
    return Normalization(color_order or "RGB", scale, means, stds, bands)


def _numbers(name: str, text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        words = "three numbers" if count == 3 else f"{count} numbers with commas"
        raise ExportError(f"{name}={text!r} is not {words}; expected for example 123.675,116.28,103.53")
    return numbers


def _three(stated: dict[str, Any], name: str, path: Path) -> tuple[float, ...]:
    values = stated.get(name)
    if isinstance(values, list) and len(values) == 3 and all(isinstance(value, int | float) for value in values):
        return float(values[0]), float(values[1]), float(values[2])
    raise ExportError(f"{path}: {name} is {values!r}; expected three numbers")
