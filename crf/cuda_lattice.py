"""The permutohedral lattice, built and filtered on the GPU (Adams, Baek & Davis 2010)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..gpu import Buffer, Device, Region, ceil_div
from .cuda_queue import Queue, Sorting

Normalization: TypeAlias = Literal["none", "before", "after", "symmetric"]

_SLICE = 32
"""Splat entries that one group of threads sums up; kSlice in the kernels."""

_ONE = 0x3F800000
_ONES = 0xFFFFFFFF
"""−1 as an integer, and what an empty slot of the table holds."""


@dataclass(frozen=True, slots=True)
class LatticeSize:
    """What the memory of a lattice depends on.

    Attributes:
        pixels: of all images of a batch.
        ghosts: points without a value that have vertices nevertheless (`Batch` in kernels/embed.cuh).
        corners: vertices of a simplex, one more than features: 3 or 6.
        capacity: vertices that there is room for.
        has_shares: of masses, for rows of fractions (kernels/filter.cuh).
    """

    pixels: int
    ghosts: int
    corners: int
    capacity: int
    has_shares: bool

    @property
    def points(self) -> int:
        """Pixels and ghosts."""
        return self.pixels + self.ghosts

    @property
    def entries(self) -> int:
        """Pairs of a point and a vertex."""
        return self.points * self.corners

    @property
    def slices(self) -> int:
        """Groups of entries that are splatted together."""
        return ceil_div(self.entries, _SLICE)

    @property
    def table_bits(self) -> int:
        """The table is at most half full, so that runs of occupied slots stay short."""
        return max(4, (2 * self.capacity - 1).bit_length())

    def bytes(self) -> dict[str, int]:
        """Of each buffer that a lattice keeps."""
        sizes = {
            "weights": 4 * self.entries,
            "pixel_vertices": 4 * self.entries,
            "splat_entries": 8 * self.slices * _SLICE,
            "first_entry": 4 * (self.capacity + 1),
            "slice_vertex": 4 * self.slices,
            "neighbours": 8 * self.corners * self.capacity,
        }
        return sizes | ({"shares": 4 * self.corners * self.capacity} if self.has_shares else {})

    def scratch_bytes(self) -> dict[str, int]:
        """Of each buffer that building takes, and that lattices share."""
        counts, tile_sums, total = Sorting.sizes(self.entries)
        sizes = {
            "keys": 8 << self.table_bits,
            "first": 4 << self.table_bits,
            "vertex_of_slot": 4 << self.table_bits,
            "slots": 4 * self.entries,
            "flags": 4 * self.entries,
            "pairs": 8 * self.entries,
            "more_pairs": 8 * self.entries,
            "vertex_keys": 8 * self.capacity,
            "counts": counts,
            "tile_sums": tile_sums,
            "total": total,
            "norms": 4 * self.pixels,
            "ones": 4 * self.pixels,
            "values": 4 * self.capacity,
            "more_values": 4 * self.capacity,
            "tails": 4 * self.slices,
        }
        return sizes | ({"masses": 4 * self.capacity} if self.has_shares else {})


def allocate(device: Device, sizes: Mapping[str, int]) -> dict[str, Buffer]:
    """A buffer for each name."""
    return {name: device.allocate(nbytes) for name, nbytes in sizes.items()}


@dataclass(frozen=True, slots=True)
class Storage:
    """How rows of channels are kept.

    Attributes:
        suffix: of the kernels for it; "u16" keeps fractions of a vertex's mass.
        channel_bytes: of one channel.
        width: channels that one thread works on.
        lanes: threads of a row.
    """

    suffix: Literal["f1", "f32", "u16"]
    channel_bytes: int
    width: int
    lanes: int

    @property
    def stride(self) -> int:
        """Channels of a row, padding included."""
        return self.width * self.lanes

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.channel_bytes * self.stride


_SCALAR = Storage("f1", 4, 1, 1)


class CudaLattice:
    """One lattice: its kernel is K̂ = diag(after) · K · diag(before), with the norms in the weights.

    Args:
        device: where it lives.
        size: its memory is fitted to this.
        normalization: where the response to ones divides.
        status: two words that the kernels report failures in.
        vertices: one word, the number of vertices once built.
    """

    def __init__(
        self, device: Device, size: LatticeSize, normalization: Normalization, status: Buffer, vertices: Buffer
    ) -> None:
        self.size = size
        self.vertices = vertices
        self.buffers = allocate(device, size.bytes())
        self._normalization = normalization
        self._status = status

    def queue_gaussian(
        self, queue: Queue, scratch: Mapping[str, Buffer], images: tuple[int, int, int], sigma_xy_px: float
    ) -> None:
        """Builds the lattice of positions; `images` is (number, height, width)."""
        number, height, width = images

        def embed(*table: Buffer | int) -> None:
            queue.each("crf_embed_gaussian", self.size.points, height, width, number, sigma_xy_px, *table)

        self._queue_build(queue, scratch, embed)

    def queue_bilateral(
        self,
        queue: Queue,
        scratch: Mapping[str, Buffer],
        rgb: Buffer,
        images: tuple[int, int, int],
        sigmas: tuple[float, float],
    ) -> None:
        """Builds the lattice of positions and colours; `sigmas` are those of positions in pixels and of colours."""
        number, height, width = images

        def embed(*table: Buffer | int) -> None:
            queue.each("crf_embed_bilateral", self.size.points, rgb, height, width, number, *sigmas, *table)

        self._queue_build(queue, scratch, embed)

    def _queue_build(self, queue: Queue, scratch: Mapping[str, Buffer], embed: Callable[..., None]) -> None:
        size, own, status = self.size, self.buffers, self._status
        table = (scratch["keys"], scratch["first"], size.table_bits)
        queue.fill(scratch["keys"], _ONES)
        queue.fill(scratch["first"], _ONES)
        queue.fill(own["neighbours"], _ONES)
        embed(*table, own["weights"], scratch["slots"], status)

        count, slots, flags = size.entries, scratch["slots"], scratch["flags"]
        sorting = Sorting(scratch["counts"], scratch["tile_sums"], scratch["total"])
        queue.each("crf_mark_first", count, slots, scratch["first"], count, flags, status)
        queue.scan(flags, count, scratch["tile_sums"], self.vertices)
        vertex_of_slot, keys = scratch["vertex_of_slot"], scratch["vertex_keys"]
        queue.each(
            "crf_number_vertices", count, slots, scratch["first"], flags, scratch["keys"], count, size.capacity,
            vertex_of_slot, keys, status,
        )  # fmt: skip
        vertices, pairs = own["pixel_vertices"], scratch["pairs"]
        queue.each("crf_pair_entries", count, slots, vertex_of_slot, count, vertices, pairs, status)
        pairs = queue.sort(pairs, scratch["more_pairs"], count, size.capacity, sorting)
        queue.each(
            "crf_lay_out_entries", size.slices * _SLICE, pairs, own["weights"], count, size.pixels, size.corners,
            own["splat_entries"], own["first_entry"], own["slice_vertex"], status,
        )  # fmt: skip
        kind = "gaussian" if size.corners == 3 else "bilateral"
        queue.each(
            f"crf_find_neighbours_{kind}", size.capacity, keys, self.vertices, scratch["keys"], size.table_bits,
            vertex_of_slot, size.capacity, own["neighbours"], status,
        )  # fmt: skip
        queue.fill(scratch["ones"], _ONE)
        self._queue_norms(queue, scratch)
        if size.has_shares:
            self._queue_shares(queue, scratch, pairs)

    def _queue_norms(self, queue: Queue, scratch: Mapping[str, Buffer]) -> None:
        """Filters ones, always in single precision, and multiplies the norms into the weights."""
        size, own, kind = self.size, self.buffers, self._normalization
        norms = scratch["norms"]
        alpha = 1.0 / (1.0 + 2.0 ** (1 - size.corners))  # the response to a unit impulse is too large by 1 + 2^−d
        if kind != "none":
            values = scratch["values"]
            self.queue_filter(queue, _SCALAR, scratch["ones"], values, scratch["more_values"], scratch["tails"])
            queue.each(
                "crf_norms", size.pixels, values, own["pixel_vertices"], own["weights"], size.pixels, size.corners,
                alpha, int(kind == "symmetric"), norms, self._status,
            )  # fmt: skip
        before, after = kind in ("before", "symmetric"), kind in ("after", "symmetric")
        queue.each(
            "crf_apply_norms", size.entries, norms, size.entries, size.pixels, size.corners, alpha, int(before),
            int(after), own["splat_entries"], own["weights"], self._status,
        )  # fmt: skip

    def _queue_shares(self, queue: Queue, scratch: Mapping[str, Buffer], pairs: Buffer) -> None:
        """What rows of fractions need: masses in the weights, and each axis's shares of them."""
        size, own, masses = self.size, self.buffers, scratch["masses"]
        self._queue_splat(queue, _SCALAR, scratch["ones"], masses, scratch["tails"])
        source, target, other = masses, scratch["values"], scratch["more_values"]
        for axis in range(size.corners):
            shares, neighbours = self._of_axis("shares", axis), self._of_axis("neighbours", axis)
            queue.each(
                "crf_share_masses", size.capacity, neighbours, self.vertices, source, shares, target, self._status
            )
            source, target, other = target, other, target
        queue.each(
            "crf_apply_masses", size.entries, pairs, own["pixel_vertices"], masses, source, size.entries,
            own["splat_entries"], own["weights"], self._status,
        )  # fmt: skip

    def queue_filter(
        self, queue: Queue, storage: Storage, rows: Buffer, values: Buffer, other: Buffer, tails: Buffer
    ) -> None:
        """Splats rows [pixels, stride] and blurs them along each axis in order.

        Args:
            queue: where the work goes.
            storage: of `rows`, `values` and `other`.
            rows: what to filter.
            values: [vertices, stride], the result.
            other: as large, overwritten.
            tails: [slices, stride] float32, overwritten.
        """
        # Each axis moves the values to the other buffer; the last one must leave them in `values`.
        source, target = (values, other) if self.size.corners % 2 == 0 else (other, values)
        self._queue_splat(queue, storage, rows, source, tails)
        for axis in range(self.size.corners):
            shares = [self._of_axis("shares", axis)] if storage.suffix == "u16" else []
            queue.rows(
                f"crf_blur_{storage.suffix}", self.size.capacity, storage.lanes, self._of_axis("neighbours", axis),
                *shares, self.vertices, source, storage.stride, target, self._status,
            )  # fmt: skip
            source, target = target, source

    def _queue_splat(self, queue: Queue, storage: Storage, rows: Buffer, values: Buffer, tails: Buffer) -> None:
        """Sums of weighted rows into `values` [vertices, stride]."""
        own, status, slices = self.buffers, self._status, self.size.slices
        lanes, stride, suffix = storage.lanes, storage.stride, storage.suffix
        queue.rows(
            f"crf_splat_{suffix}", slices, lanes, own["splat_entries"], own["slice_vertex"], slices, rows, stride,
            values, tails, status,
        )  # fmt: skip
        queue.rows(
            f"crf_splat_tails_{suffix}", slices, lanes, own["slice_vertex"], own["first_entry"], slices, tails, stride,
            values, status,
        )  # fmt: skip

    def _of_axis(self, name: str, axis: int) -> Region:
        """The part of a buffer [axes, capacity] that belongs to one axis."""
        whole = self.buffers[name]
        part = whole.nbytes // self.size.corners
        return Region(whole, axis * part, part)
