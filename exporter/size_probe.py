"""Sizes that a network takes, found by running it: the multiple, and where its logits lie."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Final

from ..errors import AtrousError, ExportError
from ..manifest import Size, SizePolicy
from ..runtime.preprocess import fit_size
from .sizes import DynamicSize, fits_grid, nearest_range, output_stride, size_policy

#: Shape of the logits [N, C, h, w] for one image of a size; raises `AtrousError` where the network does not take it.
Answer = Callable[[Size], tuple[int, ...]]

#: Largest multiple that is looked for: five strides of 2, doubled.
_LARGEST_MULTIPLE: Final = 64
_USUAL_MULTIPLES: Final = (64, 32, 16, 8)
#: Cells from the smallest of the sizes that are tried for one multiple: neighbours, and one further.
_STEPS: Final = (0, 1, 3)


def find_size_policy(
    size: Size | DynamicSize, answer: Answer, *, check: Callable[[tuple[int, ...]], None]
) -> tuple[SizePolicy, int]:
    """Sizes of a network, as asked, and the stride of its logits.

    A range without a multiple gets the smallest that the network takes, 1 for most: nothing is padded then.

    Args:
        size: the one size, or the range.
        answer: runs the network.
        check: raises for logits of a shape [N, C, h, w] that must not be; called once.

    Raises:
        ExportError: the network does not take the sizes that were asked for; the message names the nearest ones.
        AtrousError: what `answer` raises for the one size, or for every size of a range.
    """
    if isinstance(size, DynamicSize) and size.min == size.opt == size.max:
        size = size.opt
    if not isinstance(size, DynamicSize):
        size_policy(size, stride=1, offset=0)
        check(coarse := answer(size))
        cells = coarse[2:]
        stride = output_stride(size, cells)
        # One more cell than whole strides: the logits lie on pixels 0, stride, 2 · stride …
        offset = int(all(count == length // stride + 1 for length, count in zip(size, cells, strict=True)))
        return size_policy(size, stride=stride, offset=offset), stride
    size_policy(size, stride=1, offset=0, multiple=1)
    check(coarse := _answer_at_opt(size, answer))
    stride = output_stride(size.opt, coarse[2:])
    probe = _Probe(size, answer, stride)
    multiple = size.multiple if size.multiple is not None else probe.find_multiple()[0]
    policy = size_policy(size, stride=stride, offset=probe.find_offset(multiple), multiple=multiple)
    probe.require_taken(policy)
    return policy, stride


def _answer_at_opt(size: DynamicSize, answer: Answer) -> tuple[int, ...]:
    try:
        return answer(size.opt)
    except AtrousError as exc:
        probe = _Probe(size, answer, None)
        # A network that takes none of the usual multiples has another fault.
        grid = probe.try_grids() if any(probe.takes_grid(multiple, 0) for multiple in _USUAL_MULTIPLES) else None
        if grid is None or fits_grid(size.opt, *grid):
            raise
        raise ExportError(f"{exc}\n{nearest_range(size, *grid, because='the network takes')}") from exc


class _Probe:
    """Runs the network at sizes of a range; `stride` is None while it is not known."""

    def __init__(self, size: DynamicSize, answer: Answer, stride: int | None) -> None:
        self._size = size
        self._stride = stride
        self._outcome = functools.cache(functools.partial(_answer_or_error, answer))

    def find_multiple(self) -> tuple[int, int]:
        """The grid (multiple, offset) of the smallest multiple all of whose sizes the network takes.

        Raises:
            ExportError: the network takes no grid of sizes in the range.
        """
        grid = self.try_grids()
        if grid is not None:
            return grid
        low, high = (f"{height}×{width}" for height, width in (self._size.min, self._size.max))
        outcome = self._outcome(self._size.min)
        said = f"\nAt {low}: {outcome}" if isinstance(outcome, AtrousError) else ""
        raise ExportError(
            f"the network fails, or answers logits at another stride, at most sizes between {low} and {high}: no "
            f"multiple up to {_LARGEST_MULTIPLE} works. Export one size instead: size=(height, width), --size HxW{said}"
        )

    def try_grids(self) -> tuple[int, int] | None:
        """The grid (multiple, offset) of the smallest multiple all of whose sizes the network takes, or None."""
        for multiple in range(1, _LARGEST_MULTIPLE + 1):
            for offset in (0, 1) if multiple > 1 else (0,):
                if self.takes_grid(multiple, offset):
                    return multiple, offset
        return None

    def takes_grid(self, multiple: int, offset: int) -> bool:
        """True if the network takes the sizes k · multiple + offset of the range, which must have more than one."""
        sizes = list(self._some_of(multiple, offset))
        return len(sizes) > 1 and all(map(self._takes, sizes))

    def find_offset(self, multiple: int) -> int:
        """1 where the network's logits lie on the pixels 0, stride, 2 · stride …, otherwise 0.

        Many networks fit both; then what the asked sizes lie on decides.
        """
        assert self._stride is not None, "known before an offset is looked for"  # noqa: S101
        grids = [each for each in (0, 1) if all(fits_grid(one, multiple, each) for one in self._size.all)]
        aligned = [offset for offset in (0, 1) if self._is_aligned(multiple, offset)]
        both = [offset for offset in grids if offset in aligned]
        if len(both) > 1 and self._stride > 1 and fits_grid(self._size.opt, self._stride, 1):
            return 1
        return next(iter((*both, *aligned, *grids)), 0)

    def require_taken(self, policy: SizePolicy) -> None:
        """Raise ExportError if the network does not take the smallest sizes of the policy, or those beside them."""
        for size in (policy.min, policy.opt, *self._some_of(policy.multiple, policy.offset)):
            if self._takes(size):
                continue
            grid = self.find_multiple()
            height, width = size
            outcome = self._outcome(size)
            if isinstance(outcome, AtrousError):
                nearest = nearest_range(self._size, *grid, because="the network takes")
                raise ExportError(f"{outcome}\n{nearest}") from outcome
            reason = f"the network fails at {height}×{width}, or answers logits at another stride. "
            raise ExportError(reason + nearest_range(self._size, *grid, because="it takes"))

    def _cells(self, size: Size) -> tuple[int, ...] | None:
        """Height and width of the logits for an image of a size; None where the network does not take it."""
        outcome = self._outcome(size)
        return None if isinstance(outcome, AtrousError) else outcome[2:]

    def _takes(self, size: Size) -> bool:
        cells = self._cells(size)
        if cells is None or self._stride is None:
            return cells is not None
        return all(0 <= count - length // self._stride <= 2 for length, count in zip(size, cells, strict=True))

    def _is_aligned(self, multiple: int, offset: int) -> bool:
        """True if k · stride + offset pixels give k + offset cells, as tiles need it."""
        assert self._stride is not None, "known before an offset is looked for"  # noqa: S101
        wide = math.lcm(multiple, self._stride)
        height, width = (fit_size(length, wide, offset) for length in self._size.min)
        cells = ((height - offset) // self._stride + offset, (width - offset) // self._stride + offset)
        return self._cells((height, width)) == cells

    def _some_of(self, multiple: int, offset: int) -> Iterator[Size]:
        """Sizes of a grid inside the range, near its smallest: every pair of residues that halving could tell apart."""
        heights, widths = (
            [length for step in _STEPS if (length := fit_size(low, multiple, offset) + step * multiple) <= high]
            for low, high in zip(self._size.min, self._size.max, strict=True)
        )
        if heights and widths:
            for index in range(max(len(heights), len(widths))):
                yield heights[index % len(heights)], widths[(index + 1) % len(widths)]


def _answer_or_error(answer: Answer, size: Size) -> tuple[int, ...] | AtrousError:
    try:
        return answer(size)
    except AtrousError as exc:
        return exc
