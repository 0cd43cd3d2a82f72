"""The CRF's kernels in a stream, and the scans and sorts that its lattice is built with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..gpu import Buffer, Device, KernelQueue, KernelSource, Stream, ceil_div
from ..gpu.toolchain import EXACT

KERNELS = KernelSource(
    Path(__file__).parent / "kernels" / "dense_crf.cu",
    # Which simplex a pixel lies in is decided by the last bit: products and sums round one by one, as on the CPU.
    flags=EXACT,
)

_SCAN_TILE = 2048
_SORT_TILE = 4096
_DIGIT_BITS = 8


class Queue(KernelQueue):
    """Puts the CRF's kernels into a stream.

    Args:
        device: the GPU.
        stream: where work goes.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        super().__init__(device, stream, KERNELS)

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
