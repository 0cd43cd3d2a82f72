"""A backend of device memory without a GPU's library: the bundle's graph in ONNX Runtime on the CPU."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from weakref import WeakSet

import numpy as np
from emulator.emulated_device import EmulatedDevice

from atrous.bundle import Bundle
from atrous.errors import EngineError
from atrous.gpu import Buffer, Device, Stream
from atrous.runtime.backends import choose_artifact
from atrous.runtime.backends.base import EngineLayout
from atrous.runtime.backends.onnxruntime import SPEC, OnnxRuntimeBackend


class OnnxDeviceBackend(OnnxRuntimeBackend):
    """Knows the emulated `devices` that it made and the `engines` that are open.

    Args:
        make_device: called in each worker's thread.
        dtype: of input and logits.
        capturable: whether its engines say that they can be part of a graph.
        through_host: copy to the host and back, as on devices that are not emulated; then they cannot.
        max_batch: that its engines take.
    """

    name = "onnx-device"

    def __init__(
        self,
        bundle: Bundle,
        make_device: Callable[[], Device] = lambda: EmulatedDevice(is_bound=True),
        *,
        dtype: type[np.floating] = np.float32,
        capturable: bool = True,
        through_host: bool = False,
        max_batch: int = 4,
    ) -> None:
        super().__init__(bundle, choose_artifact(SPEC, bundle))
        self.max_batch = max_batch if bundle.manifest.input.takes_batches else 1
        self.dtype = np.dtype(dtype)
        self.capturable = capturable
        self.through_host = through_host
        self.sizes = bundle.manifest.input.size
        self.devices: list[EmulatedDevice] = []
        self.engines: WeakSet[OnnxDeviceEngine] = WeakSet()
        self.failures = 0
        self._make_device = make_device

    def make_device(self) -> Device:
        device = self._make_device()
        if isinstance(device, EmulatedDevice):  # PyCUDA's must go in the thread that made them
            self.devices.append(device)
        return device

    def open_engine(self, device: Device) -> OnnxDeviceEngine:
        engine = OnnxDeviceEngine(self, device)
        self.engines.add(engine)
        return engine

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of images, both of the backend's dtype."""
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(self.infer(images.astype(np.float32)), self.dtype)


class OnnxDeviceEngine:
    """On an emulated device, work in its stream, upon its addresses; elsewhere through the host, at once."""

    def __init__(self, backend: OnnxDeviceBackend, device: Device) -> None:
        self._backend = backend
        self._device = device
        self._through_host = backend.through_host or not isinstance(device, EmulatedDevice)
        self.capturable = backend.capturable and isinstance(device, EmulatedDevice)

    def prepare(self, shape: tuple[int, int, int, int]) -> EngineLayout:
        low, high = self._backend.sizes.min, self._backend.sizes.max
        if shape[0] > self._backend.max_batch or not all(
            a <= b <= c for a, b, c in zip(low, shape[2:], high, strict=True)
        ):
            raise EngineError(f"{self._backend.artifact.file} does not take {list(shape)}: outside of its profile")
        logits = self._backend.run(np.zeros(shape, self._backend.dtype))
        self._shape, self._output_shape = shape, logits.shape
        return EngineLayout(self._backend.dtype, logits.shape, logits.dtype)

    def queue(self, source: Buffer, result: Buffer, stream: Stream) -> None:
        backend, dtype = self._backend, self._backend.dtype
        if backend.failures:
            backend.failures -= 1
            raise EngineError("the engine refuses")
        assert source.nbytes == math.prod(self._shape) * dtype.itemsize
        assert result.nbytes == math.prod(self._output_shape) * dtype.itemsize
        images = np.empty(self._shape, dtype)
        if not self._through_host:

            def work() -> None:
                ctypes.memmove(images.ctypes.data, source.address, images.nbytes)
                logits = backend.run(images)
                ctypes.memmove(result.address, logits.ctypes.data, logits.nbytes)

            stream.queue(work)
        else:
            self._device.download(images, source, stream)
            self._device.upload(result, backend.run(images), stream)
