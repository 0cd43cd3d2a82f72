"""The parts that GPU backends share: a device for each thread, and arrays of the host in and out."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from ...arrays import FloatArray
from ...crf.cuda_queue import KERNELS as CRF_KERNELS
from ...errors import EngineError
from ...gpu import Buffer, Device, Stream
from ...gpu.kernel_binaries import check_kernels
from ...manifest import Artifact, Shape
from ..gpu.frame import KERNELS as FRAME_KERNELS
from .base import DeviceEngine, EngineLayout, check_logits

#: What an image takes besides the network.
KERNELS: Final = (FRAME_KERNELS, CRF_KERNELS)

MakeDevice = Callable[[], Device]
OpenEngine = Callable[[Device], DeviceEngine]

#: Shapes that a thread keeps ready in `infer`; each holds the engine's memory for its activations.
_MAX_SHAPES: Final = 2


def kernels_origin(compute_capability: tuple[int, int], cuda: tuple[int, int]) -> str:
    """Origin of the kernels around the network on such a GPU, in words.

    Args:
        compute_capability: of the GPU.
        cuda: the newest that its driver runs.

    Raises:
        DeviceError: they are neither compiled with the package nor can they be compiled here.
    """
    return "; ".join(dict.fromkeys(check_kernels(source, compute_capability, cuda) for source in KERNELS))


class GpuBackend(ABC):
    """A backend whose engines read and write the memory of a GPU; safe to call from many threads.

    Pipelines open engines of their own. `infer`, for callers with arrays of the host, keeps a device, a stream and
    the engines of the last few shapes for each thread.

    Args:
        artifact: the file of the bundle that it runs.
        max_batch: the most images of one inference.
        make_device: opens the GPU for the calling thread.
    """

    name: ClassVar[str]

    def __init__(self, artifact: Artifact, *, device: str, max_batch: int, make_device: MakeDevice) -> None:
        self.artifact = artifact
        self.device = device
        self.max_batch = max_batch
        self._make_device = make_device
        self._here = threading.local()

    def make_device(self) -> Device:
        """The GPU, for the calling thread; raises as the protocol says."""
        return self._make_device()

    @abstractmethod
    def open_engine(self, device: Device) -> DeviceEngine:
        """An engine for one input shape on a device that `make_device` made."""

    def infer(self, images: FloatArray) -> FloatArray:
        """Coarse logits [N, C, h, w] float32 of prepared images [N, 3, H, W] float32.

        Raises:
            EngineError: the engine does not take the shape, or fails.
            DeviceError: there is not enough memory, or the GPU fails.
        """
        if images.ndim != 4:
            raise EngineError(
                f"{self.name} failed with {self.artifact.file} on an input {list(images.shape)}: expected [N, 3, H, W]"
            )
        worker: _Worker | None = getattr(self._here, "worker", None)
        if worker is None:
            worker = self._here.worker = _Worker(self.make_device())
        return check_logits(worker.run(images, self.open_engine), self.artifact.file)


@dataclass(frozen=True)
class _Ready:
    """An engine with its buffers for one shape."""

    engine: DeviceEngine
    layout: EngineLayout
    source: Buffer
    result: Buffer


class _Worker:
    """One thread's device and stream, and the shapes that it has ready, the longest unused first.

    It does not know its backend: a cycle would keep the GPU's memory until the garbage collector comes by.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream: Stream = self._device.stream()
        self._ready: OrderedDict[Shape, _Ready] = OrderedDict()

    def run(self, images: FloatArray, open_engine: OpenEngine) -> FloatArray:
        count, channels, height, width = images.shape
        ready = self._of_shape((count, channels, height, width), open_engine)
        layout = ready.layout
        logits = np.empty(layout.output_shape, layout.output_dtype)
        # upload() has read the array when it returns, so a converted copy may go at once.
        self._device.upload(ready.source, np.ascontiguousarray(images, layout.input_dtype), self._stream)
        ready.engine.queue(ready.source, ready.result, self._stream)
        self._device.download(logits, ready.result, self._stream)
        return logits.astype(np.float32, copy=False)

    def _of_shape(self, shape: Shape, open_engine: OpenEngine) -> _Ready:
        ready = self._ready.get(shape)
        if ready is None:
            if len(self._ready) == _MAX_SHAPES:
                self._ready.popitem(last=False)  # before the next one asks for memory
            ready = self._ready[shape] = self._prepare(shape, open_engine(self._device))
        self._ready.move_to_end(shape)
        return ready

    def _prepare(self, shape: Shape, engine: DeviceEngine) -> _Ready:
        layout = engine.prepare(shape)
        source = self._device.allocate(math.prod(shape) * layout.input_dtype.itemsize)
        result = self._device.allocate(math.prod(layout.output_shape) * layout.output_dtype.itemsize)
        return _Ready(engine, layout, source, result)
