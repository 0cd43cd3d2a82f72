"""Input sizes of a graph: a user's choice, and the manifest's size policy."""

from __future__ import annotations

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
    """Range of input sizes (height, width), all of them as asked: an export that cannot keep one is refused.

    Attributes:
        min: smaller images are padded to this size.
        opt: size with the best speed.
        max: larger images are tiled, with tiles of at most this size.
        multiple: sizes are padded to a multiple of it, or to one more; None for the smallest multiple that the network
            takes, which is 1, no padding, for most.
    """

    min: Size
    opt: Size
    max: Size
    multiple: int | None = None

    @property
    def all(self) -> tuple[Size, Size, Size]:
        """Smallest, best and largest size."""
        return self.min, self.opt, self.max

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


def size_policy(size: Size | DynamicSize, *, stride: int, offset: int, multiple: int | None = None) -> SizePolicy:
    """Size policy of a graph: the size or the range as given.

    Args:
        size: size or range, as the user gave it.
        stride: stride of the logits.
        offset: 1 for networks that put logits on pixels 0, stride, 2 · stride …, otherwise 0.
        multiple: multiple of a range; None for the range's own, or 1.

    Raises:
        ExportError: a size is not positive, not min ≤ opt ≤ max, or not k · multiple + offset.
    """
    check_size(size)
    if isinstance(size, DynamicSize):
        low, mid, high = size.all
        multiple = multiple or size.multiple or 1
    else:
        low = mid = high = size
        # A fixed size is kept; if it has whole cells, larger images can be tiled.
        whole = fits_grid(size, stride, offset)
        multiple, offset = (stride, offset) if whole else (1, 0)
    if isinstance(size, DynamicSize) and not all(fits_grid(each, multiple, offset) for each in size.all):
        because = "the network takes" if size.multiple is None else f"with multiple={size.multiple} this network takes"
        raise ExportError(nearest_range(size, multiple, offset, because=because))
    return SizePolicy(low, mid, high, multiple=multiple, offset=offset)


def check_size(size: Size | DynamicSize) -> None:
    """Raise ExportError for a size that no image has, or a range that is not min ≤ opt ≤ max; needs no network."""
    low, mid, high = size.all if isinstance(size, DynamicSize) else (size,) * 3
    multiple = size.multiple if isinstance(size, DynamicSize) else None
    if max(*low, *mid, *high, multiple or 1) > _MAX_LENGTH:
        raise ExportError(f"input sizes must be {_MAX_LENGTH} px or less; got {size}")
    if min(low) < 1:
        raise ExportError(f"input sizes must be positive; got {size}")
    if any(not low[axis] <= mid[axis] <= high[axis] for axis in (0, 1)):
        raise ExportError(f"input sizes must be min ≤ opt ≤ max in height and width; got {size}")
    if multiple is not None and multiple < 1:
        raise ExportError(f"the multiple of input sizes must be 1 or more; got {multiple}")


def fits_grid(size: Size, multiple: int, offset: int) -> bool:
    """True if height and width are k · multiple + offset."""
    return all(length >= offset and (length - offset) % multiple == 0 for length in size)


def nearest_range(size: DynamicSize, multiple: int, offset: int, *, because: str) -> str:
    """Sentences that name the grid, what was asked, and the nearest range on the grid."""
    low, mid = ([fit_size(length, multiple, offset) for length in each] for each in (size.min, size.opt))
    high = [
        max(middle, (length - offset) // multiple * multiple + offset)
        for middle, length in zip(mid, size.max, strict=True)
    ]
    asked, nearest = (
        ":".join(f"{height}x{width}" for height, width in sizes) for sizes in (size.all, (low, mid, high))
    )
    grid = f"k · {multiple}" + (f" + {offset}" if offset else "")
    hint = "" if size.multiple is None else ", or leave the multiple out"
    return f"{because} heights and widths of {grid}; got {asked}. The nearest range is {nearest}{hint}"
