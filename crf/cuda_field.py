"""Mean-field inference on the GPU for images of one shape: memory and sequences of its launch plan."""

from __future__ import annotations

import enum
from dataclasses import astuple, dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .._native import KERNEL_CONSTANTS, plan_field
from .._native import FieldSpec as NativeFieldSpec
from ..arrays import MAX_BYTE_CLASSES
from ..errors import CRFError, DeviceError
from ..gpu import Buffer, Graph, allocate, prepare
from .cuda_inputs import MAX_IMAGES
from .cuda_queue import Queue
from .params import CRFParams, Normalization, Storage

#: Size in bytes of a frame's report.
REPORT_BYTES = KERNEL_CONSTANTS["report_bytes"]


#: Far beyond what 32-bit indices allow for an image, and small enough for products of all sides in 64 bits.
_MAX_SIDE_PX: Final = 1 << 20


class Failure(enum.IntFlag):
    """Reasons for which a frame failed."""

    KEY_RANGE = KERNEL_CONSTANTS["kKeyRange"]
    TABLE_FULL = KERNEL_CONSTANTS["kTableFull"]
    NOT_FINITE = KERNEL_CONSTANTS["kNotFinite"]
    NOT_PROBABILITY = KERNEL_CONSTANTS["kNotProbability"]


@dataclass(frozen=True, slots=True)
class Status:
    """Report of a frame.

    Attributes:
        failures: empty on success.
        first_bad: index of the first probability that is not finite.
        gaussian_vertices: number of vertices of the Gaussian lattice, over all images.
        bilateral_vertices: number of vertices of the bilateral lattice, over all images.
    """

    failures: Failure
    first_bad: int
    gaussian_vertices: int
    bilateral_vertices: int

    @classmethod
    def of(cls, words: NDArray[np.uint32]) -> Status:
        """Parse the words [4] uint32 of a report."""
        failures, first_bad, gaussian, bilateral = (int(word) for word in words)
        return cls(Failure(failures), first_bad, gaussian, bilateral)


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """Parameters on which the memory and the launches of a field depend.

    Attributes:
        images: number of images in a batch.
        classes: 1 to 256.
        height: height in pixels.
        width: width in pixels.
        storage: storage of the rows; see `CudaDenseCRF`.
        iterations: mean-field updates.
        normalization: normalization of both kernels.
        params: weights and standard deviations.
        vertices_per_pixel: capacity for bilateral vertices; photos have up to 2.4 per pixel, noise up to 6.
    """

    images: int
    classes: int
    height: int
    width: int
    storage: Storage
    iterations: int
    normalization: Normalization
    params: CRFParams
    vertices_per_pixel: int = 3

    def __post_init__(self) -> None:
        """Check what the native core divides and multiplies; raises `CRFError`."""
        for name, value, most in (
            ("images", self.images, MAX_IMAGES),
            ("classes", self.classes, MAX_BYTE_CLASSES),
            ("height", self.height, _MAX_SIDE_PX),
            ("width", self.width, _MAX_SIDE_PX),
        ):
            if not 1 <= value <= most:
                raise CRFError(f"{name} must be 1 to {most}, got {value}")

    @property
    def native(self) -> NativeFieldSpec:
        """This spec in the native core, which makes the plans."""
        return NativeFieldSpec(
            (self.images, self.classes, self.height, self.width),
            self.storage == "unorm16",
            self.iterations,
            self.normalization,
            astuple(self.params),
            self.vertices_per_pixel,
        )

    def grown(self) -> FieldSpec | None:
        """Copy with twice the capacity for bilateral vertices; None if it is already at the maximum."""
        return replace(self, vertices_per_pixel=2 * self.vertices_per_pixel) if self.native.can_grow else None

    def estimate_bytes(self) -> int:
        """Estimated bytes of a field, assuming as many Gaussian vertices as pixels."""
        return self.native.estimate_bytes()


class CudaField:
    """Q ← softmax(−U − Σ_k μ_k(K̂_k Q)) for one `FieldSpec`; allocates only when created.

    `buffers` holds all memory by its name in the plan (crf/csrc/launch_plan.hpp), plus images and labels.

    Args:
        queue: queue for the work.
        spec: shape and parameters.
        compatibilities: those of the Gaussian and of the bilateral kernel, each [C] or symmetric [C, C], float32,
            multiplied by its weight.

    Raises:
        CRFError: the Gaussian's sigma is too small for the image, or there are too many pixels.
        DeviceError: there is not enough memory; the message states the amount needed.
    """

    def __init__(
        self, queue: Queue, spec: FieldSpec, compatibilities: tuple[NDArray[np.float32], NDArray[np.float32]]
    ) -> None:
        self.spec = spec
        self.queue = queue
        device, native = queue.device, spec.native
        multiprocessors = device.properties.multiprocessors
        build = plan_field(native, compatibilities, multiprocessors)
        self._check_memory(native)
        self.buffers = allocate(build, device, queue.stream)
        queue.replay(prepare(build.sequences["build"]), self.buffers)
        built = self._read_status()
        native.check_sigmas(built.failures, is_build=True)
        plan = plan_field(native, compatibilities, multiprocessors, built.gaussian_vertices)
        self.buffers = allocate(plan, device, queue.stream, self.buffers)
        sizes = {planned.name: planned.nbytes for planned in plan.buffers}
        self.buffers |= {name: device.allocate(sizes[name]) for name in ("rgb", "labels")}
        self._sequences = {name: prepare(sequence) for name, sequence in plan.sequences.items()}
        # Run once to load every kernel, which must not happen while a graph is recorded; on zeros, because
        # compute-sanitizer reports reads of uninitialized memory.
        for name in ("planes", "rgb"):
            device.fill(self.buffers[name], 0, queue.stream)
        self.queue_frame()
        self._graph: Graph | None = None

    def run(self) -> Status:
        """Run one inference on `buffers["planes"]` and `buffers["rgb"]`."""
        self.replay()
        return self._read_status()

    def replay(self) -> None:
        """Queue `run` without waiting for its status."""
        if self._graph is None:
            self._graph = self.queue.device.capture(self.queue_frame, self.queue.stream)
        self._graph.replay(self.queue.stream)

    def queue_frame(self, rgb: Buffer | None = None) -> None:
        """Queue one inference on `buffers["planes"]` and the images in `rgb`, by default `buffers["rgb"]`.

        `queue_labels` and `queue_marginals` read the result. Can be recorded in a graph.
        """
        self._queue("frame", "rgb", rgb)

    def queue_labels(self, target: Buffer | None = None) -> None:
        """Queue writing labels [images, height, width] uint8 to `target`, by default `buffers["labels"]`."""
        self._queue("labels", "labels", target)

    def queue_marginals(self, target: Buffer | None = None) -> None:
        """Queue writing marginals [images, classes, height, width] float32 to `target`, by default over "planes"."""
        self._queue("marginals", "marginals", target or self.buffers["planes"])

    def queue_report(self, target: Buffer) -> None:
        """Queue a copy of the report (`REPORT_BYTES`), which `Status.of` parses."""
        self._queue("report", "report_copy", target)

    def _queue(self, sequence: str, given: str, buffer: Buffer | None) -> None:
        memory = self.buffers if buffer is None else {**self.buffers, given: buffer}
        self.queue.replay(self._sequences[sequence], memory)

    def _check_memory(self, native: NativeFieldSpec) -> None:
        estimate, device = native.estimate_bytes(), self.queue.device
        free = device.free_bytes()
        if estimate > free:
            raise DeviceError(
                f"{native.describe()} needs about {estimate / 2**30:.2f} GiB of GPU memory, but {free / 2**30:.2f} GiB "
                f"are free on {device.properties.name}. Use storage='unorm16', fewer images at once, or tiles"
            )

    def _read_status(self) -> Status:
        words = np.empty(REPORT_BYTES // 4, np.uint32)
        self.queue.device.download(words, self.buffers["report"], self.queue.stream)
        return Status.of(words)
