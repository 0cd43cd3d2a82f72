"""Protocols of a backend, which turns a batch of prepared images into coarse logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from ...arrays import FloatArray
from ...errors import EngineError
from ...gpu import Buffer, Device, Stream
from ...manifest import Artifact


class Backend(Protocol):
    """An opened artifact, ready to run; safe to call from many threads.

    Attributes:
        name: the name it is chosen by, e.g. `openvino`.
        device: where it computes, e.g. `CPU`.
        artifact: the file of the bundle that it runs.
    """

    name: ClassVar[str]
    device: str
    artifact: Artifact

    def infer(self, images: FloatArray) -> FloatArray:
        """Coarse logits [N, C, h, w] float32 of prepared images [N, 3, H, W] float32."""
        ...


@dataclass(frozen=True, slots=True)
class EngineLayout:
    """Arrays that an engine reads and writes for one input shape, C-contiguous in device memory.

    Attributes:
        input_dtype: of the images [N, 3, H, W]; float32 or float16.
        output_shape: of the coarse logits, [N, C, h, w].
        output_dtype: of the coarse logits; float32 or float16.
    """

    input_dtype: np.dtype[Any]
    output_shape: tuple[int, int, int, int]
    output_dtype: np.dtype[Any]


class DeviceEngine(Protocol):
    """An opened artifact that reads and writes device memory, with an execution context of its own.

    Belongs to the thread and the `Device` that it was opened for.

    Attributes:
        capturable: whether `queue` may be recorded in a CUDA graph once it has run on the stream.
    """

    capturable: bool

    def prepare(self, shape: tuple[int, int, int, int]) -> EngineLayout:
        """Fixes the input shape [N, 3, H, W]; called once in an engine's life, before anything is queued.

        Raises:
            EngineError: the shape lies outside the engine's profile; the message says what it takes.
            DeviceError: there is not enough memory for it.
        """
        ...

    def queue(self, source: Buffer, result: Buffer, stream: Stream) -> None:
        """Queues one inference from images to logits, as the layout says; allocates nothing and waits for nothing.

        Always called with the same buffers, of exactly the layout's sizes.

        Raises:
            EngineError: the engine refuses.
        """
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend that computes on a GPU: it opens engines for the workers of a pipeline.

    Both methods may be called from many threads at once.

    Attributes:
        max_batch: the most images of one inference; 1 where the graph has one size.
    """

    max_batch: int

    def make_device(self) -> Device:
        """The GPU that it computes on, for the calling thread.

        Raises:
            MissingDependencyError: neither PyCUDA nor cuda-bindings is installed.
            DeviceError: there is no such GPU.
        """
        ...

    def open_engine(self, device: Device) -> DeviceEngine:
        """An engine for one input shape on a device that `make_device` made; what can be shared is shared.

        Raises:
            EngineError: the engine cannot be opened.
            DeviceError: there is not enough memory for it.
        """
        ...


def check_logits(logits: Any, file: str) -> FloatArray:  # noqa: ANN401 - whatever the engine gave
    """Engines answer float32 [N, C, h, w]; anything else is a foreign graph that slipped through.

    Raises:
        EngineError: `file` answered something else.
    """
    if not isinstance(logits, np.ndarray) or logits.ndim != 4 or logits.dtype != np.float32:
        raise EngineError(
            f"{file} answered {getattr(logits, 'dtype', type(logits))} {getattr(logits, 'shape', '')}; "
            "expected float32 logits [N, C, h, w]. Pack or export the model again."
        )
    return logits
