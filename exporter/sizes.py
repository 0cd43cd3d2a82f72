"""Input sizes of a graph: a user's choice, and the manifest's size policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..arguments import check_fields
from ..errors import ExportError
from ..manifest import Size, SizePolicy
from ..runtime.preprocess import fit_size

#: A square of it has 2³⁰ pixels, of which even the input alone would take 12 GiB.
_MAX_LENGTH: Final = 32768


@dataclass(frozen=True)
class DynamicSize:
    """Range of input sizes (height, width); the graph takes any size in it, padded to a multiple.

    Attributes:
        min: smaller images are padded to this size.
        opt: size with the best speed.
        max: larger images are tiled, with tiles of at most this size.
        multiple: sizes are padded to a multiple of it; use the backbone's output stride, so that no stage rounds.
    """

    min: Size
    opt: Size
    max: Size
    multiple: int = 16

    def __post_init__(self) -> None:
        check_fields(self)


def output_stride(size: Size, coarse: Sequence[int]) -> int:
    """Output stride in pixels, from one input size and the (h, w) of its logits.

    Strided layers round down or up, and pools that round up (VGG-16) can add one more: `length // stride` to
    `length // stride + 2` cells. Powers of two are tried first, because strided layers produce them.

    Raises:
        ExportError: no stride explains both height and width.
    """
    for stride in sorted(range(1, max(size) + 1), key=lambda value: (value.bit_count() > 1, value)):
        if all(0 <= cells - length // stride <= 2 for length, cells in zip(size, coarse, strict=True)):
            return stride
    raise ExportError(
        f"logits of {tuple(coarse)} for an input of {size} have no consistent output stride; expected [N, C, h, w] "
        "with h and w the same fraction of the input's. Are the axes in another order?"
    )


def size_policy(size: Size | DynamicSize, *, stride: int, offset: int) -> SizePolicy:
    """Size policy of a graph: a fixed size as given, a range rounded up to k · multiple + offset.

    Args:
        size: size or range, as the user gave it.
        stride: stride of the logits; the multiple becomes a multiple of it, so that padding adds whole coarse cells.
        offset: 1 for networks that put logits on pixels 0, stride, 2 · stride …, otherwise 0.

    Raises:
        ExportError: a size is not positive, or not min ≤ opt ≤ max.
    """
    _check_lengths(size)
    if isinstance(size, DynamicSize):
        multiple = math.lcm(size.multiple, stride)
        low, mid, high = (
            (fit_size(height, multiple, offset), fit_size(width, multiple, offset))
            for height, width in (size.min, size.opt, size.max)
        )
    else:
        low = mid = high = size
        # A fixed size is kept; if it has whole cells, larger images can be tiled.
        whole = all(fit_size(length, stride, offset) == length for length in size)
        multiple, offset = (stride, offset) if whole else (1, 0)
    if min(low) < 1:
        raise ExportError(f"input sizes must be positive; got {size}")
    if any(not low[axis] <= mid[axis] <= high[axis] for axis in (0, 1)):
        raise ExportError(f"input sizes must be min ≤ opt ≤ max in height and width; got {size}")
    return SizePolicy(low, mid, high, multiple=multiple, offset=offset)


def _check_lengths(size: Size | DynamicSize) -> None:
    """Raise ExportError for lengths that no image has."""
    lengths = (*size.min, *size.opt, *size.max, size.multiple) if isinstance(size, DynamicSize) else size
    if max(lengths) > _MAX_LENGTH:
        raise ExportError(f"input sizes must be {_MAX_LENGTH} px or less; got {size}")
    if isinstance(size, DynamicSize) and size.multiple < 1:
        raise ExportError(f"the multiple of input sizes must be 1 or more; got {size.multiple}")
