"""What the kernels of a dense-CRF frame move, launch by launch: the model that measurements are compared with.

Which launches there are, on which lattice and of how many items, is read from the field's launch plan.

Two numbers a launch. `least` counts each array that it reads or writes once, as if the cache held the rest: what has to
cross memory if no kernel finds anything of the one before. `asked` counts every row and word that a thread asks for, in
sectors of 32 bytes where it lies at random: what has to cross the second-level cache. What crosses memory lies between,
or below where arrays stay in the cache from kernel to kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from atrous import _native
from atrous.crf.cuda_field import FieldSpec
from atrous.gpu import ceil_div

#: Share of neighbours along an axis that exist; 0.38 to 0.62 were seen on photos.
NEIGHBOURS = 0.5
FILL = "fill"
_SECTOR = 32
_SCAN_TILE = _native.KERNEL_CONSTANTS["kScanTile"]


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

    spec: _native.LatticeSpec
    vertices: int

    @property
    def open_slices(self) -> float:
        """Those that end within a vertex, and so leave a tail."""
        return self.spec.slices * (1 - min(1.0, self.vertices / self.spec.entries))


@dataclass(frozen=True, slots=True)
class _Field:
    """What the bytes of a frame follow from."""

    pixels: int
    classes: int
    storage: _native.RowStorage
    lattices: Mapping[str, _Lattice]


def frame(spec: FieldSpec, vertices: Mapping[str, int]) -> list[Traffic]:
    """Everything that `CudaField.queue_frame` puts into the stream, in that order.

    Args:
        spec: of the field.
        vertices: of each lattice, as `CudaDenseCRF.vertices` has them.
    """
    native = spec.native
    potts = np.full(spec.classes, -1, np.float32)
    plan = _native.plan_field(native, (potts, potts), multiprocessors=1, gaussian_vertices=vertices["gaussian"])
    lattices = {each.name: _Lattice(each, vertices[each.name]) for each in (native.gaussian, native.bilateral) if each}
    field = _Field(spec.images * spec.height * spec.width, spec.classes, native.storage, lattices)
    return [_traffic(step, field) for step in plan.sequences["frame"]]


def total(traffic: Iterable[Traffic], part: str | None = None) -> tuple[float, float]:
    """`least` and `asked` of all launches, or of those of one part."""
    chosen = [each for each in traffic if part in (None, each.part)]
    return sum(each.least for each in chosen), sum(each.asked for each in chosen)


def per_iteration(spec: FieldSpec, vertices: Mapping[str, int]) -> tuple[float, float]:
    """`least` and `asked` of one iteration, on average."""
    least, asked = total(frame(spec, vertices), "iteration")
    return least / spec.iterations, asked / spec.iterations


def _traffic(step: _native.Step, field: _Field) -> Traffic:
    work = step.work
    if isinstance(work, _native.PlannedFill):
        moved, kernel = _even(work.target.nbytes), FILL
    else:
        assert isinstance(work, _native.PlannedLaunch), "a frame copies nothing"
        kernel = work.kernel
        numbers = [value for value in work.args if isinstance(value, int)]
        lattice = field.lattices.get(step.lattice)
        moved = _moved_by_field(work, numbers, field) if lattice is None else _moved(work, numbers, field, lattice)
    return Traffic(kernel, step.part, step.lattice, *moved)


def _even(nbytes: float) -> tuple[float, float]:
    """Of what is read and written in order, everything once."""
    return nbytes, nbytes


def _sectors(nbytes: int) -> int:
    """Bytes that are moved for so many at a random place."""
    return ceil_div(nbytes, _SECTOR) * _SECTOR


def _moved_by_field(work: _native.PlannedLaunch, numbers: list[int], field: _Field) -> tuple[float, float]:
    """Of a kernel that works on pixels: `least` and `asked`."""
    pixels, logits = field.pixels, 4 * field.storage.stride
    if work.kernel == "crf_read_probabilities":
        return _even(pixels * (4 * field.classes + logits))
    row, terms = field.storage.row_bytes, numbers[0]
    least = asked = pixels * (logits + (logits if work.kernel.startswith("crf_last") else row))
    for lattice in field.lattices.values() if terms else ():
        corners = lattice.spec.corners * pixels
        least += 8 * corners + lattice.vertices * row
        asked += (8 + _sectors(row)) * corners
    return least, asked


def _moved(work: _native.PlannedLaunch, numbers: list[int], field: _Field, lattice: _Lattice) -> tuple[float, float]:
    """Of a kernel that works on a lattice."""
    name, suffix = re.fullmatch(r"crf_(.*?)(?:_(f1|f32|u16|gaussian|bilateral))?", work.kernel).groups()
    entries, vertices, pixels = lattice.spec.entries, lattice.vertices, field.pixels
    links = lattice.spec.corners * vertices
    match name:
        case "scan_tiles" | "scan_add":
            return _even(8 * numbers[0] + 4 * ceil_div(numbers[0], _SCAN_TILE))
        case "scan_sums":
            return _even(8 * numbers[0])
        case "sort_count":
            return _even(8 * entries + work.args[3].nbytes)
        case "sort_scatter":
            counts = work.args[3].nbytes
            return 16 * entries + counts, 24 * entries + counts
        case "splat" | "splat_tails" | "blur":
            return _filtered(name, suffix, field, lattice)
    # Bytes in order, those at random places if each were fetched once, and sectors at random places.
    own, once, sectors = {
        "embed": (3 * pixels + 8 * entries, 24 * vertices, 2 * entries),
        "mark_first": (8 * entries, 4 * vertices, entries),
        "number_vertices": (8 * entries + 8 * vertices, 16 * vertices, entries + 2 * vertices),
        "pair_entries": (16 * entries, 4 * vertices, entries),
        "lay_out_entries": (16 * entries + 4 * vertices + 4 * lattice.spec.slices, 4 * entries, entries),
        "find_neighbours": (8 * vertices, 12 * vertices + 8 * links, (1 + 3 * NEIGHBOURS) * links),
        "norms": (8 * entries + 4 * pixels, 4 * vertices, entries),
        "apply_norms": (24 * entries + 4 * pixels, 0, entries),
        "share_masses": (20 * vertices, 0, 2 * NEIGHBOURS * vertices),
        "apply_masses": (36 * entries + 4 * vertices, 4 * vertices, entries),
    }[name]
    return own + once, own + _SECTOR * sectors


def _filtered(name: str, suffix: str, field: _Field, lattice: _Lattice) -> tuple[float, float]:
    """Of splats and blurs, of rows or, with the suffix f1, of single numbers."""
    spec, vertices = lattice.spec, lattice.vertices
    row, stride = (4, 1) if suffix == "f1" else (field.storage.row_bytes, field.storage.stride)
    if name == "blur":
        own = ((12 if suffix == "u16" else 8) + 2 * row) * vertices  # u16: with shares of masses
        return own, own + 2 * NEIGHBOURS * _sectors(row) * vertices
    tail = 4 * stride * lattice.open_slices
    if name == "splat":
        own = 8 * spec.entries + 4 * spec.slices + vertices * row + tail
        return own + field.pixels * row, own + spec.entries * _sectors(row)
    own = 4 * spec.slices + tail
    closed = 2 * min(lattice.open_slices, vertices)
    return own + closed * row, own + _SECTOR * spec.slices + closed * _sectors(row)
