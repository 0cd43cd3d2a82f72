"""Launch shapes and pieces of memory for the CRF's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..gpu import Argument, Buffer, Device, KernelSource, Launch, Stream

KERNELS = KernelSource(
    Path(__file__).parent / "kernels" / "dense_crf.cu",
    # Which simplex a pixel lies in is decided by the last bit: products and sums round one by one, as on the CPU.
    flags=("-fmad=false",),
)

THREADS = 256
"""Of every block; kThreads in the kernels."""

_BLOCKS_PER_MULTIPROCESSOR = 16
"""Enough to keep a multiprocessor busy to the end; kernels loop over what is more."""

_SCAN_TILE = 2048
_SORT_TILE = 4096
_DIGIT_BITS = 8

Value: TypeAlias = Buffer | int | float | None
"""An argument of a kernel: memory, a 32-bit integer, a 32-bit float, or a null pointer."""


@dataclass(frozen=True, slots=True)
class Region:
    """Part of a buffer, as a buffer.

    Attributes:
        whole: the buffer, kept alive.
        offset: of the first byte.
        nbytes: the size.
    """

    whole: Buffer
    offset: int
    nbytes: int

    @property
    def address(self) -> int:
        """The device pointer."""
        return self.whole.address + self.offset


def ceil_div(a: int, b: int) -> int:
    """Quotient, rounded up."""
    return -(-a // b)


class Queue:
    """Puts the CRF's kernels into a stream.

    Args:
        device: the GPU.
        stream: where work goes.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self.device = device
        self.stream = stream
        self._module = device.load(KERNELS)
        self._most_blocks = device.properties.multiprocessors * _BLOCKS_PER_MULTIPROCESSOR

    def each(self, kernel: str, count: int, *args: Value) -> None:
        """One thread for each of `count` items."""
        self._launch(kernel, min(ceil_div(count, THREADS), self._most_blocks), (THREADS, 1), args)

    def tiles(self, kernel: str, blocks: int, *args: Value, block: tuple[int, int] = (THREADS, 1)) -> None:
        """Exactly `blocks` blocks."""
        self._launch(kernel, blocks, block, args)

    def rows(self, kernel: str, count: int, lanes: int, *args: Value) -> None:
        """`lanes` threads side by side for each of `count` rows."""
        rows_of_block = THREADS // lanes
        blocks = min(ceil_div(count, rows_of_block), self._most_blocks)
        self._launch(kernel, blocks, (lanes, rows_of_block), args)

    def fill(self, buffer: Buffer, word: int) -> None:
        """Sets every 32-bit word."""
        self.device.fill(buffer, word, self.stream)

    def scan(self, values: Buffer, count: int, tile_sums: Buffer, total: Buffer) -> None:
        """Exclusive prefix sums of 32-bit counts in place; `total` becomes their sum."""
        tiles = ceil_div(count, _SCAN_TILE)
        self.tiles("crf_scan_tiles", tiles, values, count, tile_sums)
        self.tiles("crf_scan_sums", 1, tile_sums, tiles, total)
        if tiles > 1:
            self.each("crf_scan_add", count, values, count, tile_sums)

    def sort(self, pairs: Buffer, other: Buffer, count: int, high: int, sorting: Sorting) -> Buffer:
        """Sorts 64-bit pairs stably by their upper halves, which are below `high`; returns where they end up."""
        for shift in range(32, 32 + max(1, high.bit_length()), _DIGIT_BITS):
            tiles = ceil_div(count, _SORT_TILE)
            self.tiles("crf_sort_count", tiles, pairs, count, shift, sorting.counts)
            self.scan(sorting.counts, tiles << _DIGIT_BITS, sorting.tile_sums, sorting.total)
            self.tiles("crf_sort_scatter", tiles, pairs, count, shift, sorting.counts, other)
            pairs, other = other, pairs
        return pairs

    def _launch(self, kernel: str, grid: int, block: tuple[int, int], args: Sequence[Value]) -> None:
        self._module.launch(Launch(kernel, grid, block, [_typed(value) for value in args]), self.stream)


@dataclass(frozen=True, slots=True)
class Sorting:
    """Scratch memory of scans and sorts.

    Attributes:
        counts: digit counts of each tile.
        tile_sums: sums of the tiles of a scan.
        total: one word that nobody reads.
    """

    counts: Buffer
    tile_sums: Buffer
    total: Buffer

    @staticmethod
    def sizes(count: int) -> tuple[int, int, int]:
        """Bytes of the three for up to `count` items."""
        counts = ceil_div(count, _SORT_TILE) << _DIGIT_BITS
        return 4 * counts, 4 * ceil_div(max(count, counts), _SCAN_TILE), 4


def _typed(value: Value) -> Argument:
    if isinstance(value, int):
        integer: np.int32 = np.int32(value)
        return integer
    if isinstance(value, float):
        number: np.float32 = np.float32(value)
        return number
    return value
