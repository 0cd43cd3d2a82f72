"""Mean-field inference on the GPU: all memory and the whole launch sequence for images of one shape."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import CRFError, DeviceError
from ..gpu import Buffer, Graph, Region, ceil_div
from .cuda_lattice import CudaLattice, LatticeSize, Normalization, Storage, allocate
from .cuda_queue import Queue
from .params import CRFParams, Precision

PROBABILITY_FLOOR = 1e-5
"""−log of this is the largest unary energy, as on the CPU."""

GAUSSIAN_CORNERS = 3
BILATERAL_CORNERS = 6

_LEAST_CAPACITY = 4096
"""Small images have many vertices a pixel and need little memory."""

MAX_ENTRIES = 2**30
"""Kernels index pairs of a pixel and a vertex with 32 bits, and step beyond the last."""

_WARP = 32
_PLANE_TILE = 32
REPORT_BYTES = 16
"""Of the four words that a frame reports."""

_TERM_BYTES = 48


class Failure(enum.IntFlag):
    """Why a frame failed; mirrors `Failure` in kernels/common.cuh."""

    KEY_RANGE = 1
    TABLE_FULL = 2
    NOT_FINITE = 4
    NOT_PROBABILITY = 8


@dataclass(frozen=True, slots=True)
class Status:
    """What a frame reports.

    Attributes:
        failures: none on success.
        first_bad: index of the first probability that is not finite.
        gaussian_vertices: of the Gaussian lattice, over all images.
        bilateral_vertices: of the bilateral lattice, over all images.
    """

    failures: Failure
    first_bad: int
    gaussian_vertices: int
    bilateral_vertices: int

    @classmethod
    def of(cls, words: NDArray[np.uint32]) -> Status:
        """From the words of a report."""
        failures, first_bad, gaussian, bilateral = (int(word) for word in words)
        return cls(Failure(failures), first_bad, gaussian, bilateral)


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """What the memory and the launch sequence of a field depend on.

    Attributes:
        images: in a batch.
        classes: 1 to 256.
        height: in pixels.
        width: in pixels.
        precision: of rows, see `CudaDenseCRF`.
        iterations: mean-field updates.
        normalization: of both kernels.
        params: weights and standard deviations.
        vertices_per_pixel: room for bilateral vertices; photos have up to 2.4 a pixel, noise up to 6.
    """

    images: int
    classes: int
    height: int
    width: int
    precision: Precision
    iterations: int
    normalization: Normalization
    params: CRFParams
    vertices_per_pixel: int = 3

    @property
    def area(self) -> int:
        """Pixels of one image."""
        return self.height * self.width

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return self.images * self.area

    @property
    def ghosts(self) -> int:
        """Points of a lattice besides the pixels."""
        return self.images if self.area % 4 else 0

    @property
    def most_vertices(self) -> int:
        """Bilateral vertices that so many points can have."""
        return BILATERAL_CORNERS * (self.pixels + self.ghosts)

    @property
    def bilateral_capacity(self) -> int:
        """Bilateral vertices that there is room for."""
        return min(max(self.vertices_per_pixel * self.pixels, _LEAST_CAPACITY), self.most_vertices)

    @property
    def storage(self) -> Storage:
        """Rows are whole 16-byte vectors."""
        if self.precision == "unorm16":
            return Storage("u16", 2, 8, ceil_div(self.classes, 8))
        return Storage("f32", 4, 4, ceil_div(self.classes, 4))

    def lattices(self) -> dict[str, LatticeSize]:
        """The lattices that the weights ask for, in the order of the terms."""
        sizes, has_shares = {}, self.precision == "unorm16"
        if self.iterations > 0 and self.params.gaussian_weight != 0:
            # It is built once, and its vertices are not known before.
            most = GAUSSIAN_CORNERS * (self.pixels + self.ghosts)
            sizes["gaussian"] = LatticeSize(self.pixels, self.ghosts, GAUSSIAN_CORNERS, most, has_shares)
        if self.iterations > 0 and self.params.bilateral_weight != 0:
            room = self.bilateral_capacity
            sizes["bilateral"] = LatticeSize(self.pixels, self.ghosts, BILATERAL_CORNERS, room, has_shares)
        return sizes

    def grown(self) -> FieldSpec | None:
        """With twice the room for bilateral vertices; None if there is room for all that the pixels can have."""
        if self.bilateral_capacity >= self.most_vertices:
            return None
        return replace(self, vertices_per_pixel=2 * self.vertices_per_pixel)

    def scratch_bytes(self) -> dict[str, int]:
        """Building memory that serves each of the lattices."""
        needs = [size.scratch_bytes() for size in self.lattices().values()]
        return {name: max(need[name] for need in needs) for name in (needs[0] if needs else {})}

    def row_bytes(self) -> dict[str, int]:
        """Of each buffer that holds rows or planes."""
        stride = self.storage.stride
        sizes = {
            "planes": 4 * self.classes * self.pixels,
            "labels": ceil_div(self.pixels, 4) * 4,
            "rgb": ceil_div(3 * self.pixels, 4) * 4,
            "logits": 4 * stride * self.pixels,
            "marginals": self.storage.row_bytes * self.pixels,
        }
        if lattices := self.lattices().values():
            sizes["tails"] = 4 * stride * max(size.slices for size in lattices)
        return sizes

    def value_bytes(self, vertices: int) -> int:
        """Of the rows of so many vertices."""
        return self.storage.row_bytes * vertices

    def estimate_bytes(self) -> int:
        """Memory of a field, with as many Gaussian vertices as pixels, and one more set of the most values."""
        kept = sum(sum(size.bytes().values()) for size in self.lattices().values())
        values = 2 * self.value_bytes(self.bilateral_capacity) + self.value_bytes(self.pixels)
        return kept + sum(self.scratch_bytes().values()) + sum(self.row_bytes().values()) + values


class CudaField:
    """Q ← softmax(−U − Σ_k μ_k(K̂_k Q)) for one `FieldSpec`; allocates when made and never again.

    Args:
        queue: where work goes.
        spec: the shape and what to compute.
        compatibility: [C], or [C, C] and symmetric, float32, by which a kernel's weight is multiplied.

    Raises:
        CRFError: the Gaussian's sigma is too small for the image, or there are too many pixels.
        DeviceError: there is not enough memory; the message says how much is needed.
    """

    def __init__(self, queue: Queue, spec: FieldSpec, compatibility: NDArray[np.float32]) -> None:
        self.spec = spec
        self.queue = queue
        self._check_memory()
        device, sizes = queue.device, spec.lattices()
        self.buffers = allocate(device, spec.row_bytes())
        self._scratch = allocate(device, spec.scratch_bytes())
        self._report = device.allocate(REPORT_BYTES)
        self._status = Region(self._report, 0, 8)
        self._lattices = {
            name: CudaLattice(device, size, spec.normalization, self._status, self._counter(name))
            for name, size in sizes.items()
        }
        self.queue.fill(self._report, 0)
        self._build_gaussian()
        self._values = {name: device.allocate(spec.value_bytes(self._room(name))) for name in sizes}
        self._other = device.allocate(max([4, *(buffer.nbytes for buffer in self._values.values())]))
        self._tables = self._upload_terms(compatibility)
        # Every kernel is loaded now, not while a graph is recorded. On zeros, as compute-sanitizer reports what is read
        # and was not written.
        for name in ("planes", "rgb"):
            self.queue.fill(self.buffers[name], 0)
        self.queue_frame()
        self._graph: Graph | None = None

    def run(self) -> Status:
        """Infers from `buffers["planes"]` and `buffers["rgb"]`."""
        self.replay()
        return self._read_status()

    def replay(self) -> None:
        """Queues `run` without waiting for its status."""
        if self._graph is None:
            self._graph = self.queue.device.capture(self.queue_frame, self.queue.stream)
        self._graph.replay(self.queue.stream)

    def queue_frame(self, rgb: Buffer | None = None) -> None:
        """Queues one inference from `buffers["planes"]` and the pictures in `rgb`, or else `buffers["rgb"]`.

        Marginals [pixels, stride] are left in "logits", for `queue_labels` and `queue_marginals`. May be recorded.
        """
        spec, queue, buffers = self.spec, self.queue, self.buffers
        queue.fill(Region(self._report, 0, 4), 0)
        queue.fill(Region(self._report, 4, 4), 0xFFFFFFFF)
        queue.tiles(
            "crf_read_probabilities", self._plane_blocks(), buffers["planes"], spec.images, spec.classes, spec.area,
            spec.storage.stride, PROBABILITY_FLOOR, buffers["logits"], self._status, block=(_PLANE_TILE, 8),
        )  # fmt: skip
        if "bilateral" in self._lattices:
            sigmas = (spec.params.bilateral_sigma_xy_px, spec.params.bilateral_sigma_rgb)
            lattice = self._lattices["bilateral"]
            lattice.queue_bilateral(queue, self._scratch, rgb or buffers["rgb"], self._images(), sigmas)
        self._queue_step(0, is_last=spec.iterations == 0)  # without terms: softmax(−U)
        for iteration in range(spec.iterations):
            for name, lattice in self._lattices.items():
                lattice.queue_filter(
                    queue, spec.storage, buffers["marginals"], self._values[name], self._other, buffers["tails"]
                )
            self._queue_step(len(self._lattices), is_last=iteration == spec.iterations - 1)

    def queue_labels(self, target: Buffer | None = None) -> None:
        """The most probable class of each pixel, into `target`, or else `buffers["labels"]`."""
        spec, rows = self.spec, self.buffers["logits"]
        stride, labels = spec.storage.stride, target or self.buffers["labels"]
        self.queue.each("crf_write_labels", spec.pixels, rows, spec.pixels, spec.classes, stride, labels, self._status)

    def queue_marginals(self, target: Buffer | None = None) -> None:
        """Marginals [images, classes, height, width] into `target`, or else over the probabilities in "planes"."""
        spec, rows = self.spec, self.buffers["logits"]
        self.queue.tiles(
            "crf_write_marginals", self._plane_blocks(), rows, spec.images, spec.classes, spec.area,
            spec.storage.stride, target or self.buffers["planes"], self._status, block=(_PLANE_TILE, 8),
        )  # fmt: skip

    def queue_report(self, target: Buffer) -> None:
        """A copy of the `REPORT_BYTES` that `Status.of` reads."""
        self.queue.device.copy_from_address(target, self._report.address, REPORT_BYTES, self.queue.stream)

    def _check_memory(self) -> None:
        spec = self.spec
        estimate = spec.estimate_bytes()
        what = f"a dense CRF of {spec.classes} classes on {spec.images}×{spec.height}×{spec.width} pixels"
        if spec.most_vertices >= MAX_ENTRIES or spec.pixels * spec.classes >= 2**32:
            most = min(MAX_ENTRIES // BILATERAL_CORNERS, 2**32 // spec.classes)
            raise CRFError(
                f"{what} needs about {estimate / 2**30:.1f} GiB, and its indices exceed 32 bits: the limit is "
                f"{most / 1e6:.0f} million pixels. Refine a smaller image, fewer images at once, or tiles"
            )
        free = self.queue.device.free_bytes()
        if estimate > free:
            raise DeviceError(
                f"{what} needs about {estimate / 2**30:.2f} GiB of GPU memory, and {free / 2**30:.2f} GiB are free on "
                f"{self.queue.device.properties.name}. Use precision='unorm16', fewer images at once, or tiles"
            )

    def _counter(self, name: str) -> Region:
        return Region(self._report, 8 if name == "gaussian" else 12, 4)

    def _room(self, name: str) -> int:
        """Vertices to hold values for: exactly those of the Gaussian, which is built already."""
        if name == "gaussian":
            return max(1, self._read_status().gaussian_vertices)
        return self.spec.bilateral_capacity

    def _read_status(self) -> Status:
        words = np.empty(4, np.uint32)
        self.queue.device.download(words, self._report, self.queue.stream)
        return Status.of(words)

    def _images(self) -> tuple[int, int, int]:
        return self.spec.images, self.spec.height, self.spec.width

    def _build_gaussian(self) -> None:
        """Depends on nothing but the size, so it is built once."""
        if "gaussian" not in self._lattices:
            return
        sigma_px = self.spec.params.gaussian_sigma_xy_px
        self._lattices["gaussian"].queue_gaussian(self.queue, self._scratch, self._images(), sigma_px)
        if self._read_status().failures:
            raise CRFError(
                f"the Gaussian's sigma of {sigma_px:g} px is too small for {self.spec.height}×{self.spec.width} "
                "pixels: lattice coordinates exceed 20 bits. Use a larger sigma"
            )

    def _upload_terms(self, compatibility: NDArray[np.float32]) -> dict[str, Buffer]:
        """The table of terms that the update reads, and what it points to."""
        spec, device, stream = self.spec, self.queue.device, self.queue.stream
        weights = {"gaussian": spec.params.gaussian_weight, "bilateral": spec.params.bilateral_weight}
        tables: dict[str, Buffer] = {}
        rows = []
        for name, lattice in self._lattices.items():
            # What is added to −U per unit of filter response.
            scale = np.ones(spec.storage.stride, np.float32)
            pointers = [self._values[name], lattice.buffers["pixel_vertices"], lattice.buffers["weights"]]
            matrix_address = 0
            if compatibility.ndim == 1:
                scale[: spec.classes] = -np.float32(weights[name]) * compatibility
            else:
                matrix = np.zeros((spec.classes, spec.storage.stride), np.float32)
                matrix[:, : spec.classes] = -np.float32(weights[name]) * compatibility
                tables[f"{name}_matrix"] = device.allocate(matrix.nbytes)
                device.upload(tables[f"{name}_matrix"], matrix, stream)
                matrix_address = tables[f"{name}_matrix"].address
            tables[f"{name}_scale"] = device.allocate(scale.nbytes)
            device.upload(tables[f"{name}_scale"], scale, stream)
            rows.append(
                [*(p.address for p in (*pointers, tables[f"{name}_scale"])), matrix_address, lattice.size.corners]
            )
        tables["terms"] = device.allocate(max(1, len(rows)) * _TERM_BYTES)
        if rows:
            device.upload(tables["terms"], np.array(rows, np.int64), stream)
        return tables

    def _plane_blocks(self) -> int:
        return self.spec.images * ceil_div(self.spec.area, _PLANE_TILE)

    def _queue_step(self, terms: int, *, is_last: bool) -> None:
        """One update; the last one writes single precision, over the unaries."""
        spec, buffers = self.spec, self.buffers
        storage = spec.storage
        is_wide = storage.lanes > _WARP  # more lanes than a warp has: two vectors a lane
        # A power of two, so that lanes exchange by halving distances.
        lanes = 1 << (ceil_div(storage.lanes, 2 if is_wide else 1) - 1).bit_length()
        kernel = f"crf_{'last_' if is_last else ''}step_{storage.suffix}{'_wide' if is_wide else ''}"
        target = buffers["logits"] if is_last else buffers["marginals"]
        self.queue.rows(
            kernel, spec.pixels, lanes, self._tables["terms"], terms, buffers["logits"], spec.pixels, spec.classes,
            storage.stride, target, self._status,
        )  # fmt: skip
