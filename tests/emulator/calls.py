"""Kernels called like functions on NumPy arrays, on any `Device`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from atrous.crf.cuda_queue import KERNELS
from atrous.gpu import Buffer, Device, KernelSource, Launch


class Calls:
    """Copies arrays to the device, launches, and copies them back into the arguments.

    Args:
        device: where to run.
        source: the kernels.
    """

    def __init__(self, device: Device, source: KernelSource = KERNELS) -> None:
        self._device = device
        self._stream = device.stream()
        self._module = device.load(source)

    def __call__(self, kernel: str, grid: int, block: tuple[int, int], *args: np.ndarray | np.generic | None) -> None:
        """Runs one launch; arrays are updated in place, scalars are NumPy scalars of the parameter's type."""
        arrays = {i: a for i, a in enumerate(args) if isinstance(a, np.ndarray)}
        buffers = {i: self._sent(array) for i, array in arrays.items()}
        self._module.launch(Launch(kernel, grid, block, [buffers.get(i, a) for i, a in enumerate(args)]), self._stream)
        self._fetch(arrays, buffers)

    def _sent(self, array: np.ndarray) -> Buffer:
        buffer = self._device.allocate(max(1, array.nbytes))
        self._device.upload(buffer, array, self._stream)
        return buffer

    def _fetch(self, arrays: Mapping[int, np.ndarray], buffers: Mapping[int, Buffer]) -> None:
        for i, array in arrays.items():
            self._device.download(array, buffers[i], self._stream)
