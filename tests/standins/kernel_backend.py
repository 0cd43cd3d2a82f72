"""A network that is one kernel, so that whole frames can be recorded on any device: logits = prepared pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tiny_graphs import color_layers, make_bundle

from atrous.bundle import Bundle
from atrous.exporter.sizes import DynamicSize
from atrous.gpu import Buffer, Device, KernelSource, Launch, Module, Stream, ceil_div
from atrous.runtime.backends import choose_artifact
from atrous.runtime.backends.base import EngineLayout
from atrous.runtime.backends.onnxruntime import SPEC, OnnxRuntimeBackend

PROBE = KernelSource(Path(__file__).parents[1] / "emulator" / "probe.cu")


def pixel_bundle(path: Path) -> Bundle:
    """Three classes at stride 1, for 8×8 to 1024×2048: what `KernelBackend` computes."""
    return make_bundle(path, color_layers(1), sizes=DynamicSize((8, 8), (64, 64), (1024, 2048), multiple=1))


class KernelBackend(OnnxRuntimeBackend):
    """For a `pixel_bundle`; on the host, ONNX Runtime does the same.

    Args:
        make_device: called in each worker's thread.
    """

    name = "kernel"
    max_batch = 8

    def __init__(self, bundle: Bundle, make_device: Callable[[], Device]) -> None:
        super().__init__(bundle, choose_artifact(SPEC, bundle))
        self.make_device = make_device

    def open_engine(self, device: Device) -> KernelEngine:
        return KernelEngine(device)


class KernelEngine:
    capturable = True

    def __init__(self, device: Device) -> None:
        self._device = device
        self._count = 0
        self._module: Module | None = None

    def prepare(self, shape: tuple[int, int, int, int]) -> EngineLayout:
        self._count = math.prod(shape)
        return EngineLayout(np.dtype(np.float32), shape, np.dtype(np.float32))

    def queue(self, source: Buffer, result: Buffer, stream: Stream) -> None:
        if self._module is None:
            self._module = self._device.load(PROBE)
        args = (source, np.float32(1), np.int32(self._count), result)
        self._module.launch(Launch("scale", min(ceil_div(self._count, 256), 1024), (256, 1), args), stream)
