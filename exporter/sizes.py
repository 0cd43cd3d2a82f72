"""Input sizes of a graph: as a user states them, and as the manifest does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ExportError
from ..manifest import Size, SizePolicy
from ..runtime.preprocess import fit_size


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
