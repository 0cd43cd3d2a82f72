"""What the kernels of a dense-CRF frame move, launch by launch: the model that measurements are compared with.

Two numbers a launch. `least` counts each array that it reads or writes once, as if the cache held the rest: what has to
cross memory if no kernel finds anything of the one before. `asked` counts every row and word that a thread asks for, in
sectors of 32 bytes where it lies at random: what has to cross the second-level cache. What crosses memory lies between,
or below where arrays stay in the cache from kernel to kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from atrous.crf.cuda_field import FieldSpec
from atrous.crf.cuda_lattice import LatticeSize, Storage
from atrous.gpu import ceil_div

#: Share of neighbours along an axis that exist; 0.38 to 0.62 were seen on photos.
NEIGHBOURS = 0.5
FILL = "fill"
_SECTOR = 32
_WARP = 32
_SCAN_TILE, _SORT_TILE, _DIGITS = 2048, 4096, 256
_SCALAR = Storage("f1", 4, 1, 1)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one launch, or of several.

    Attributes:
        kernel: its name; `FILL` for memory that is set to a word.
        part: "input", "construction" or "iteration".
        lattice: that it works on, "gaussian" or "bilateral"; "" where that means nothing.
        least: see above.
        asked: see above.
    """

    kernel: str
    part: str
    lattice: str
    least: float
    asked: float


@dataclass(frozen=True, slots=True)
class _Lattice:
    """A lattice that is built, with what its kernels' bytes follow from."""

    kind: str
    size: LatticeSize
    vertices: int

    @property
    def entries(self) -> int:
        return self.size.entries

    @property
    def open_slices(self) -> float:
        """Those that end within a vertex, and so leave a tail."""
        return self.size.slices * (1 - min(1.0, self.vertices / self.entries))


def frame(spec: FieldSpec, vertices: Mapping[str, int]) -> list[Traffic]:
    """Everything that `CudaField.queue_frame` puts into the stream, in that order.

    Args:
        spec: of the field.
        vertices: of each lattice, as `CudaDenseCRF.vertices` has them.
    """
    storage = spec.storage
    lattices = [_Lattice(kind, size, vertices[kind]) for kind, size in spec.lattices().items()]
    planes = 4 * spec.classes * spec.pixels
    logits = 4 * storage.stride * spec.pixels
    found = [_even(FILL, "input", 4), _even(FILL, "input", 4)]
    found.append(_even("crf_read_probabilities", "input", planes + logits))
    for lattice in lattices:
        if lattice.kind == "bilateral":  # the other one is built once and kept
            found += _construction(lattice, rgb_bytes=3 * spec.pixels)
    found.append(_step(spec, [], "input", is_last=spec.iterations == 0))
    for iteration in range(spec.iterations):
        for lattice in lattices:
            found += _splat(lattice, storage, spec.pixels, "iteration")
            found += _blur(lattice, storage, "iteration")
        found.append(_step(spec, lattices, "iteration", is_last=iteration == spec.iterations - 1))
    return found


def total(traffic: Iterable[Traffic], part: str | None = None) -> tuple[float, float]:
    """`least` and `asked` of all launches, or of those of one part."""
    chosen = [each for each in traffic if part in (None, each.part)]
    return sum(each.least for each in chosen), sum(each.asked for each in chosen)


def per_iteration(spec: FieldSpec, vertices: Mapping[str, int]) -> tuple[float, float]:
    """`least` and `asked` of one iteration, on average."""
    least, asked = total(frame(spec, vertices), "iteration")
    return least / spec.iterations, asked / spec.iterations


def _even(kernel: str, part: str, nbytes: float, lattice: str = "") -> Traffic:
    """Of a kernel that reads and writes in order, everything once."""
    return Traffic(kernel, part, lattice, nbytes, nbytes)


def _sectors(nbytes: int) -> int:
    """Bytes that are moved for so many at a random place."""
    return ceil_div(nbytes, _SECTOR) * _SECTOR


def _construction(lattice: _Lattice, *, rgb_bytes: int) -> Iterator[Traffic]:
    size, entries, vertices = lattice.size, lattice.entries, lattice.vertices
    part, kind = "construction", lattice.kind
    for nbytes in (8 << size.table_bits, 4 << size.table_bits, 8 * size.corners * size.capacity):
        yield _even(FILL, part, nbytes, kind)
    own = rgb_bytes + 8 * entries
    yield Traffic("crf_embed_bilateral", part, kind, own + 24 * vertices, own + 2 * _SECTOR * entries)
    yield Traffic("crf_mark_first", part, kind, 8 * entries + 4 * vertices, (8 + _SECTOR) * entries)
    yield from _scan(entries, part, kind)
    own = 8 * entries + 8 * vertices
    asked = own + _SECTOR * (entries + 2 * vertices)
    yield Traffic("crf_number_vertices", part, kind, own + 16 * vertices, asked)
    yield Traffic("crf_pair_entries", part, kind, 16 * entries + 4 * vertices, (16 + _SECTOR) * entries)
    for _ in range(ceil_div(max(1, size.capacity.bit_length()), 8)):
        counts = ceil_div(entries, _SORT_TILE) * _DIGITS
        yield _even("crf_sort_count", part, 8 * entries + 4 * counts, kind)
        yield from _scan(counts, part, kind)
        yield Traffic("crf_sort_scatter", part, kind, 16 * entries + 4 * counts, 24 * entries + 4 * counts)
    own = 16 * entries + 4 * vertices + 4 * size.slices
    yield Traffic("crf_lay_out_entries", part, kind, own + 4 * entries, own + _SECTOR * entries)
    links = 8 * size.corners * vertices
    found = NEIGHBOURS * size.corners * vertices
    yield Traffic(
        "crf_find_neighbours_bilateral", part, kind, 20 * vertices + links,
        8 * vertices + _SECTOR * (size.corners * vertices + 3 * found),
    )  # fmt: skip
    yield _even(FILL, part, 4 * size.pixels, kind)
    yield from _splat(lattice, _SCALAR, size.pixels, part)
    yield from _blur(lattice, _SCALAR, part)
    own = 8 * entries + 4 * size.pixels
    yield Traffic("crf_norms", part, kind, own + 4 * vertices, own + _SECTOR * entries)
    own = 24 * entries + 4 * size.pixels
    yield Traffic("crf_apply_norms", part, kind, own, own + _SECTOR * entries)
    if size.has_shares:
        yield from _shares(lattice, part)


def _shares(lattice: _Lattice, part: str) -> Iterator[Traffic]:
    """Masses, and each axis's shares of them."""
    kind, vertices, entries = lattice.kind, lattice.vertices, lattice.entries
    yield from _splat(lattice, _SCALAR, lattice.size.pixels, part)
    for _ in range(lattice.size.corners):
        own = 20 * vertices
        yield Traffic("crf_share_masses", part, kind, own, own + 2 * NEIGHBOURS * _SECTOR * vertices)
    own = 36 * entries + 4 * vertices
    yield Traffic("crf_apply_masses", part, kind, own + 4 * vertices, own + _SECTOR * entries)


def _scan(count: int, part: str, kind: str) -> Iterator[Traffic]:
    tiles = ceil_div(count, _SCAN_TILE)
    yield _even("crf_scan_tiles", part, 8 * count + 4 * tiles, kind)
    yield _even("crf_scan_sums", part, 8 * tiles, kind)
    if tiles > 1:
        yield _even("crf_scan_add", part, 8 * count + 4 * tiles, kind)


def _splat(lattice: _Lattice, storage: Storage, pixels: int, part: str) -> Iterator[Traffic]:
    size, vertices, suffix = lattice.size, lattice.vertices, storage.suffix
    row = storage.row_bytes
    tail = 4 * storage.stride * lattice.open_slices
    own = 8 * lattice.entries + 4 * size.slices + vertices * row + tail
    yield Traffic(f"crf_splat_{suffix}", part, lattice.kind, own + pixels * row, own + lattice.entries * _sectors(row))
    own = 4 * size.slices + tail
    closed = 2 * min(lattice.open_slices, vertices)
    asked = own + _SECTOR * size.slices + closed * _sectors(row)
    yield Traffic(f"crf_splat_tails_{suffix}", part, lattice.kind, own + closed * row, asked)


def _blur(lattice: _Lattice, storage: Storage, part: str) -> Iterator[Traffic]:
    vertices, row = lattice.vertices, storage.row_bytes
    links = 12 if storage.suffix == "u16" else 8  # with shares of masses
    own = (links + 2 * row) * vertices
    asked = own + 2 * NEIGHBOURS * _sectors(row) * vertices
    for _ in range(lattice.size.corners):
        yield Traffic(f"crf_blur_{storage.suffix}", part, lattice.kind, own, asked)


def _step(spec: FieldSpec, lattices: Iterable[_Lattice], part: str, *, is_last: bool) -> Traffic:
    storage, pixels = spec.storage, spec.pixels
    row = storage.row_bytes
    least = asked = pixels * (4 * storage.stride + (4 * storage.stride if is_last else row))
    for lattice in lattices:
        corners = lattice.size.corners * pixels
        least += 8 * corners + lattice.vertices * row
        asked += (8 + _sectors(row)) * corners
    wide = "_wide" if storage.lanes > _WARP else ""
    return Traffic(f"crf_{'last_' if is_last else ''}step_{storage.suffix}{wide}", part, "", least, asked)
