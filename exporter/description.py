"""What a model does not say about itself: classes, input sizes and preprocessing, as a user states them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._version import __version__
from ..crf import CRFParams
from ..errors import ExportError
from ..manifest import MAX_CLASSES, ClassInfo, InputSpec, Manifest, OutputSpec, ResizePolicy, Size, SizePolicy
from ..runtime.preprocess import fit_size
from .normalization import IMAGENET, Normalization


@dataclass(frozen=True)
class DynamicSize:
    """A range of input sizes (height, width); the graph takes any size within, padded to the model's multiple.

    Attributes:
        min: smaller pictures are padded up to it.
        opt: the size to be fastest at.
        max: larger pictures are cut into tiles of at most this size.
        multiple: sizes are padded to it; the backbone's output stride, so that no stage rounds.
    """

    min: Size
    opt: Size
    max: Size
    multiple: int = 16


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input; the default normalisation is torchvision's for ImageNet.

    Attributes:
        resize: `none` pads and tiles, `stretch` resizes every picture to the one (or optimal) size.
        pad_value: RGB, 0–255; the mean colour when None, so that padding is 0 after normalisation.
    """

    normalization: Normalization = IMAGENET
    resize: ResizePolicy = "none"
    pad_value: tuple[int, int, int] | None = None

    def input_spec(self, size: SizePolicy) -> InputSpec:
        """The manifest's form of it."""
        norm, pad_value = self.normalization, self.pad_value
        if pad_value is None:
            first, second, third = (min(255, max(0, round(value / norm.scale))) for value in norm.mean)
            pad_value = (first, second, third) if norm.color_order == "RGB" else (third, second, first)
        return InputSpec(
            size=size,
            color_order=norm.color_order,
            mean=norm.mean,
            std=norm.std,
            scale=norm.scale,
            resize=self.resize,
            pad_value=pad_value,
        )


@dataclass(frozen=True)
class Description:
    """All of it together: what a manifest says beyond what the graph shows.

    Attributes:
        align_corners: how the training upsampled the logits.
        crf: parameters that `crf=True` will use; DeepLab v2's when None.
        license: terms of the weights.
    """

    classes: tuple[ClassInfo, ...]
    size: Size | DynamicSize
    preprocessing: Preprocessing
    align_corners: bool
    crf: CRFParams | None
    license: str | None

    def provisional_size(self) -> SizePolicy:
        """The sizes before the stride of the logits is known, for the run that finds it."""
        return size_policy(self.size, stride=1, offset=0)

    def draft_manifest(self, path: Path, coarse: tuple[int, ...]) -> Manifest:
        """A manifest without artifacts, given the logits [N, C, h, w] of one run at `provisional_size().opt`.

        Raises:
            ExportError: the logits have another number of classes, or no stride.
        """
        if len(coarse) != 4 or coarse[1] != len(self.classes):
            raise ExportError(
                f"the model answers {list(coarse)}; expected [N, {len(self.classes)}, h, w]: one channel for each of "
                f"the {len(self.classes)} classes named ({', '.join(info.name for info in self.classes)})"
            )
        size = self.provisional_size().opt
        stride = output_stride(size, coarse[2:])
        # One cell more than whole strides: the logits lie on pixels 0, stride, 2 · stride …
        offset = int(all(cells == length // stride + 1 for length, cells in zip(size, coarse[2:], strict=True)))
        sizes = size_policy(self.size, stride=stride, offset=offset)
        return Manifest(
            name=path.stem,
            created_by=f"atrous {__version__}",
            classes=self.classes,
            input=self.preprocessing.input_spec(sizes),
            output=OutputSpec(stride=stride, align_corners=self.align_corners),
            crf=(self.crf or CRFParams.deeplab_v2_resnet()).to_dict(),
            license=self.license,
        )


def output_stride(size: Size, coarse: Sequence[int]) -> int:
    """Pixels from one coarse cell to the next, from one input size and the (h, w) of its logits.

    Strided layers round down, up, or up and one more (pools that round up, as in VGG-16): `length // stride` to
    `length // stride + 2` cells. Powers of two are tried first, since that is what strided layers make.

    Raises:
        ExportError: no stride explains both height and width.
    """
    for stride in sorted(range(1, max(size) + 1), key=lambda value: (value.bit_count() > 1, value)):
        if all(0 <= cells - length // stride <= 2 for length, cells in zip(size, coarse, strict=True)):
            return stride
    raise ExportError(
        f"logits of {tuple(coarse)} for an input of {size} have no output stride that fits height and width; expected "
        "[N, C, h, w] with h and w the same fraction of the input's. Are the axes in another order?"
    )


def size_policy(size: Size | DynamicSize, *, stride: int, offset: int) -> SizePolicy:
    """The sizes that a graph takes: as stated when fixed, rounded up to k · multiple + offset when a range.

    Args:
        size: as the user stated it.
        stride: of the logits; multiples are made multiples of it, so that padding adds whole coarse cells.
        offset: 1 for networks that put logits on pixels 0, stride, 2 · stride …, otherwise 0.

    Raises:
        ExportError: sizes that are not positive, or not min ≤ opt ≤ max.
    """
    if isinstance(size, DynamicSize):
        multiple = math.lcm(size.multiple, stride)
        low, mid, high = (
            (fit_size(height, multiple, offset), fit_size(width, multiple, offset))
            for height, width in (size.min, size.opt, size.max)
        )
    else:
        low = mid = high = size
        # A fixed size stands as it is; whole cells are a bonus, with which larger pictures can be tiled.
        whole = all(fit_size(length, stride, offset) == length for length in size)
        multiple, offset = (stride, offset) if whole else (1, 0)
    if min(low) < 1:
        raise ExportError(f"input sizes must be positive; got {size}")
    if any(not low[axis] <= mid[axis] <= high[axis] for axis in (0, 1)):
        raise ExportError(f"input sizes must be min ≤ opt ≤ max in height and width; got {size}")
    return SizePolicy(low, mid, high, multiple=multiple, offset=offset)


def describe_classes(classes: Sequence[str | ClassInfo]) -> tuple[ClassInfo, ...]:
    """Class names, in the order of the logits, to manifest entries; colours are PASCAL VOC's where none are given.

    Raises:
        ExportError: none, or more than labels in uint8 can tell apart.
    """
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise ExportError(f"a bundle has 1 to {MAX_CLASSES} classes; got {len(classes)}")
    return tuple(
        entry if isinstance(entry, ClassInfo) else ClassInfo(index, entry, voc_color(index))
        for index, entry in enumerate(classes)
    )


def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """Read classes from a file: JSON `[{"name": …, "color": [r, g, b]}, …]`, or text with one name a line.

    Raises:
        ExportError: the file is missing or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ExportError(f"cannot read classes from {path}: {exc}") from exc
    if path.suffix.lower() != ".json":
        return describe_classes([line.strip() for line in text.splitlines() if line.strip()])
    try:
        return describe_classes([_class_from_json(index, entry) for index, entry in enumerate(json.loads(text))])
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ExportError(
            f'{path} does not list classes: {exc!r}. Expected [{{"name": "road", "color": [128, 64, 128]}}, …]'
        ) from exc


def voc_color(index: int) -> tuple[int, int, int]:
    """PASCAL VOC's colour of class `index`: its bits spread over the high bits of red, green and blue."""
    red, green, blue = (
        sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue


def _class_from_json(index: int, entry: Any) -> ClassInfo:  # noqa: ANN401 - JSON
    red, green, blue = entry.get("color", voc_color(index))
    if not all(isinstance(value, int) and 0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"color {entry['color']} is not three whole numbers from 0 to 255")
    return ClassInfo(index, str(entry["name"]), (red, green, blue))
