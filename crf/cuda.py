"""Fully connected CRF on the GPU, which refines class probabilities."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._native import PROBABILITY_FLOOR, ClassSubset, check_class_floor, likely_classes
from ..arguments import check_arguments, check_arguments_besides, describe
from ..errors import ArgumentError, CRFError, DeviceError, ShapeError
from ..gpu import Buffer, Device, open_device
from .compatibility import Compatibility, bilateral_term, checked_compatibility, gaussian_term, potts
from .cuda_field import CudaField, Failure, FieldSpec, Status
from .cuda_inputs import AnyArray, Input, checked_image, checked_probabilities
from .cuda_queue import Queue
from .params import MAX_ITERATIONS, CRFParams, Normalization, Storage

_NORMALIZATIONS = ("symmetric", "before", "after", "none")


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """Result in GPU memory, readable through `__cuda_array_interface__`. The next call overwrites it.

    Attributes:
        shape: shape of the C-contiguous array.
        typestr: NumPy's code of the dtype.
        buffer: its memory.
    """

    shape: tuple[int, ...]
    typestr: str
    buffer: Buffer = field(repr=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface; the result is complete, so there is no stream to wait for."""
        data = (self.buffer.address, False)
        return {"shape": self.shape, "typestr": self.typestr, "data": data, "version": 3, "stream": None}


class CudaDenseCRF:
    """Mean-field inference in a dense CRF with a bilateral and a Gaussian kernel (Krähenbühl & Koltun 2011).

    Equivalent to `DenseCRF`. Memory, the Gaussian lattice and a CUDA graph of the inference are reused by calls of the
    same shape. Calls are serialized, and must come from the thread that created `device`.

    Args:
        params: weights and standard deviations of the kernels.
        iterations: mean-field updates; 0 gives softmax(−unary).
        storage: values on the lattice, and Q between updates, in single precision or as 16-bit fractions of 1
            (docs/crf.md), which halve the memory traffic. Arithmetic, unaries and norms are always in single precision.
        normalization: side on which values are divided by the kernel's response to ones, s: `before` or `after` the
            filter by s, `symmetric` on both sides by √s, or `none`.
        compatibility: [C] on the diagonal or [C, C], multiplied by the weight of each kernel; negative values attract.
            A matrix counts as ½(m + mᵀ). Or a `Compatibility`, as in `DenseCRF`. Potts, −1 on the diagonal, by default.
        class_floor: as in `DenseCRF`, where an image and its result are on the host; of batches, and in GPU memory, all
            classes take part. Needs the default `compatibility`.
        device: the GPU; `gpu.open_device()` by default.

    Raises:
        ArgumentError: an argument has the wrong type.
        CRFError: an option is invalid.
        MissingDependencyError: neither PyCUDA nor cuda-bindings is installed.
        DeviceError: there is no GPU.
    """

    @check_arguments_besides("compatibility")
    def __init__(
        self,
        params: CRFParams | None = None,
        *,
        iterations: int = 10,
        storage: Storage = "fp32",
        normalization: Normalization = "symmetric",
        compatibility: ArrayLike | Compatibility | None = None,
        class_floor: float = 0.0,
        device: Device | None = None,
    ) -> None:
        if not 0 <= iterations <= MAX_ITERATIONS:
            raise CRFError(f"iterations must be 0 to {MAX_ITERATIONS}, got {iterations}")
        if device is not None and not isinstance(device, Device):
            raise ArgumentError(f"device must be a GPU of gpu.open_device(); got {describe(device)}", argument="device")
        for name, value, choices in (
            ("storage", storage, get_args(Storage)),
            ("normalization", normalization, _NORMALIZATIONS),
        ):
            if value not in choices:
                raise CRFError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        self.params = params if params is not None else CRFParams.deeplab_v2_resnet()
        self.iterations = iterations
        self.storage: Storage = storage
        self.normalization: Normalization = normalization
        self._compatibility: Compatibility | NDArray[np.float32] | None
        if compatibility is None or isinstance(compatibility, Compatibility):
            self._compatibility = compatibility
        else:
            self._compatibility = checked_compatibility(compatibility)
        self.class_floor = float(class_floor)
        check_class_floor(self.class_floor, self.params.gaussian_weight, self.params.bilateral_weight)
        if self.class_floor > 0 and compatibility is not None:
            raise CRFError(
                "class_floor needs the Potts compatibility; leave compatibility out, or set class_floor to 0"
            )
        self._device: Device = device if device is not None else open_device()
        self._queue = Queue(self._device, self._device.stream())
        self._lock = threading.Lock()
        self._field: CudaField | None = None
        self._last: Status | None = None

    def __call__(self, probabilities: AnyArray, image: AnyArray) -> NDArray[np.float32]:
        """Refine class probabilities; the result is on the host.

        Args:
            probabilities: [C, H, W] or [B, C, H, W] floating point in [0, 1]; clipped to [1e-5, 1] before the
                logarithm. On the GPU, float32 and C-contiguous.
            image: [H, W, 3] or [B, H, W, 3] uint8 RGB. On the GPU, C-contiguous.

        Returns:
            Marginals in the shape of `probabilities`, float32; they sum to 1 over the classes.

        Raises:
            ShapeError: shapes, dtypes or values are invalid.
            CRFError: a sigma is too small for the image, or there are too many pixels.
            DeviceError: there is not enough GPU memory, or the GPU failed.
        """
        with self._lock:
            shape, subset = self._infer_likely(probabilities, image)
            self.field.queue_marginals()
            kept: NDArray[np.float32] = self._download(shape, np.float32, "planes")
        if subset is None or not subset.left_out:
            return kept
        marginals = np.full((subset.classes, *kept.shape[1:]), PROBABILITY_FLOOR, np.float32)
        marginals[subset.kept] = np.float32(subset.kept_mass) * kept
        return marginals

    def labels(self, probabilities: AnyArray, image: AnyArray) -> NDArray[np.uint8]:
        """Most probable class of each pixel after refinement, on the host; ties go to the lowest class.

        Arguments and errors are those of `__call__`; the result is [H, W] or [B, H, W] uint8.
        """
        with self._lock:
            shape, subset = self._infer_likely(probabilities, image)
            self.field.queue_labels()
            labels: NDArray[np.uint8] = self._download(_without_classes(shape), np.uint8, "labels")
        return labels if subset is None else np.array(subset.kept, np.uint8)[labels]

    def marginals_on_device(self, probabilities: AnyArray, image: AnyArray) -> DeviceArray:
        """Like `__call__`, with the result [C, H, W] or [B, C, H, W] in GPU memory until the next call."""
        with self._lock:
            shape = self._infer(checked_probabilities(probabilities), image)
            self.field.queue_marginals()
            self._queue.stream.synchronize()
            return DeviceArray(shape, "<f4", self.field.buffers["planes"])

    def labels_on_device(self, probabilities: AnyArray, image: AnyArray) -> DeviceArray:
        """Like `labels`, with the result [H, W] or [B, H, W] in GPU memory until the next call."""
        with self._lock:
            shape = self._infer(checked_probabilities(probabilities), image)
            self.field.queue_labels()
            self._queue.stream.synchronize()
            return DeviceArray(_without_classes(shape), "|u1", self.field.buffers["labels"])

    @property
    def vertices(self) -> dict[str, int]:
        """Number of vertices of each lattice in the last call, over all images; time and memory grow with it."""
        if self._last is None:
            return {}
        return {"gaussian": self._last.gaussian_vertices, "bilateral": self._last.bilateral_vertices}

    @property
    def field(self) -> CudaField:
        """Memory and launch sequences for the shape of the last call.

        Raises:
            DeviceError: no call has run yet, or its allocation failed.
        """
        if self._field is None:
            raise DeviceError("no inference has run yet")
        return self._field

    def __reduce__(self) -> tuple[Callable[[CRFParams], CudaDenseCRF], tuple[CRFParams]]:
        """Pickle as parameters, options and the GPU, without memory; the other process opens the same GPU."""
        make = partial(
            CudaDenseCRF,
            iterations=self.iterations,
            storage=self.storage,
            normalization=self.normalization,
            compatibility=self._compatibility,
            class_floor=self.class_floor,
            device=self._device,
        )
        return make, (self.params,)

    @check_arguments
    def open_field(self, queue: Queue, images: int, classes: int, height: int, width: int) -> CudaField:
        """Allocate memory and launch sequences of one shape, for a pipeline that queues them among its own kernels.

        Nothing is copied, and nothing waits: the pipeline writes probabilities to `buffers["planes"]`, calls
        `queue_frame`, then `queue_labels` or `queue_marginals`, and `queue_report`. It passes the `Status` to
        `check_status`; on `Failure.TABLE_FULL` it needs a field of `field.spec.grown()`.

        Args:
            queue: queue on a stream of this CRF's device.

        Raises:
            CRFError: a sigma is too small for the image, there are too many pixels, or the compatibility has another
                number of classes.
            DeviceError: there is not enough GPU memory.
        """
        return self.regrow_field(queue, self._spec(images, classes, height, width))

    @check_arguments
    def regrow_field(self, queue: Queue, spec: FieldSpec) -> CudaField:
        """Allocate a field of the given spec; raises as `open_field` does."""
        compatibility = self._compatibility
        if isinstance(compatibility, Compatibility):
            classes = spec.classes
            both = gaussian_term(compatibility, classes, 1.0), bilateral_term(compatibility, classes, 1.0)
            return CudaField(queue, spec, both)
        shared = potts(spec.classes, 1.0) if compatibility is None else compatibility
        return CudaField(queue, spec, (shared, shared))

    @check_arguments
    def check_status(self, status: Status, shape: tuple[int, ...]) -> None:
        """Raise as `__call__` does if a frame on probabilities of `shape` reports a failure."""
        if len(shape) not in (3, 4):
            expected, actual = "[C, H, W] or [B, C, H, W]", str(list(shape))
            raise ShapeError(f"the shape must be {expected}; got {actual}", expected=expected, actual=actual)
        failures = status.failures
        if failures & Failure.NOT_FINITE:
            *image, class_index, row, column = (int(i) for i in np.unravel_index(status.first_bad, shape))
            where = f"image {image[0]}, " if image else ""
            raise ShapeError(
                f"probabilities must be finite, got NaN or infinity at {where}class {class_index}, row {row}, column "
                f"{column}; check what computed them (overflow in half precision is a common cause)",
                expected="finite values",
                actual="NaN or infinity",
            )
        if failures & Failure.NOT_PROBABILITY:
            raise ShapeError(
                "probabilities must lie in [0, 1]; apply softmax to logits first",
                expected="values in [0, 1]",
                actual="values outside",
            )
        self._spec(*((1, *shape) if len(shape) == 3 else shape)).native.check_sigmas(failures, is_build=False)
        if failures:
            raise DeviceError(f"internal error: the lattice's hash table overflowed at its maximum size: {failures!r}")

    def _infer_likely(self, probabilities: AnyArray, image: AnyArray) -> tuple[tuple[int, ...], ClassSubset | None]:
        """Infer on the classes above the floor; their shape, and which they are if the floor is used."""
        maps = checked_probabilities(probabilities)
        if self.class_floor == 0 or maps.host is None or len(maps.shape) == 4:
            return self._infer(maps, image), None
        planes = np.ascontiguousarray(maps.host, dtype=np.float32)
        subset = likely_classes(planes, self.class_floor, self.params.unary_temperature)
        return self._infer(checked_probabilities(planes[subset.kept]) if subset.left_out else maps, image), subset

    def _infer(self, maps: Input, image: AnyArray) -> tuple[int, ...]:
        pixels = checked_image(image, maps.shape)
        self._prepare(maps.shape)
        while True:
            buffers = self.field.buffers
            self._send(maps, np.float32, buffers["planes"])
            self._send(pixels, np.uint8, buffers["rgb"])
            status = self.field.run()
            if status.failures & Failure.TABLE_FULL and (grown := self.field.spec.grown()) is not None:
                self._replace(grown)
                continue
            self._last = status
            self.check_status(status, maps.shape)
            return maps.shape

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Allocate the field for probabilities of this shape, unless the current one matches."""
        images, (classes, height, width) = (shape[0] if len(shape) == 4 else 1), shape[-3:]
        if self._field is not None:
            spec = self._field.spec
            if (spec.images, spec.classes, spec.height, spec.width) == (images, classes, height, width):
                return
        self._replace(self._spec(images, classes, height, width))

    def _spec(self, images: int, classes: int, height: int, width: int) -> FieldSpec:
        compatibility = self._compatibility
        if compatibility is None:
            known = classes
        else:
            known = compatibility.classes if isinstance(compatibility, Compatibility) else len(compatibility)
        if known != classes:
            raise CRFError(f"the compatibility is for {known} classes, but the probabilities have {classes}")
        return FieldSpec(
            images=images,
            classes=classes,
            height=height,
            width=width,
            storage=self.storage,
            iterations=self.iterations,
            normalization=self.normalization,
            params=self.params,
        )

    def _replace(self, spec: FieldSpec) -> None:
        self._field = None  # frees the old memory before allocating the new
        self._field = self.regrow_field(self._queue, spec)

    def _send(self, array: Input, dtype: type[np.generic], buffer: Buffer) -> None:
        if array.host is not None:  # converted only now that its memory is allocated
            self._device.upload(buffer, np.ascontiguousarray(array.host, dtype=dtype), self._queue.stream)
            return
        if array.must_wait:
            self._device.wait_for_others()
        self._device.copy_from_address(buffer, array.address, array.nbytes, self._queue.stream)

    def _download(self, shape: tuple[int, ...], dtype: type[np.generic], name: str) -> NDArray[Any]:
        result = np.empty(shape, dtype)
        self._device.download(result, self.field.buffers[name], self._queue.stream)
        return result


def _without_classes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[..., C, H, W] → [..., H, W]."""
    return (*shape[:-3], *shape[-2:])
