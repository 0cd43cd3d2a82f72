"""Launch shapes, arguments and pieces of memory: what all launch sequences share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .._native import KERNEL_CONSTANTS
from .device import Argument, Buffer, Device, KernelSource, Launch, Stream

THREADS = KERNEL_CONSTANTS["kThreads"]
"""Threads of every block."""

Value: TypeAlias = Buffer | int | float | None
"""An argument of a kernel: memory, a 32-bit integer, a 32-bit float, or a null pointer."""


@dataclass(frozen=True, slots=True)
class Region:
    """Part of a buffer, as a buffer.

    Attributes:
        whole: the buffer, kept alive.
        offset: of the first byte.
        nbytes: the size.
    """

    whole: Buffer
    offset: int
    nbytes: int

    @property
    def address(self) -> int:
        """The device pointer."""
        return self.whole.address + self.offset


def ceil_div(a: int, b: int) -> int:
    """Quotient, rounded up."""
    return -(-a // b)


class KernelQueue:
    """Puts kernels of one source into a stream.

    Args:
        device: the GPU.
        stream: where work goes.
        source: the kernels.
    """

    def __init__(self, device: Device, stream: Stream, source: KernelSource) -> None:
        self.device = device
        self.stream = stream
        self._module = device.load(source)
        self._most_blocks = device.properties.multiprocessors * KERNEL_CONSTANTS["kBlocksPerMultiprocessor"]

    def each(self, kernel: str, count: int, *args: Value) -> None:
        """One thread for each of `count` items."""
        self._launch(kernel, min(ceil_div(count, THREADS), self._most_blocks), (THREADS, 1), args)

    def tiles(self, kernel: str, blocks: int, *args: Value, block: tuple[int, int] = (THREADS, 1)) -> None:
        """Exactly `blocks` blocks."""
        self._launch(kernel, blocks, block, args)

    def fill(self, buffer: Buffer, word: int) -> None:
        """Sets every 32-bit word."""
        self.device.fill(buffer, word, self.stream)

    def _launch(self, kernel: str, grid: int, block: tuple[int, int], args: Sequence[Value]) -> None:
        self._module.launch(Launch(kernel, grid, block, [_typed(value) for value in args]), self.stream)


def kernel_number(value: float) -> np.int32 | np.float32:
    """A Python number in the type of a kernel's parameter: int32 for an int, float32 for a float."""
    number: np.int32 | np.float32 = np.int32(value) if isinstance(value, int) else np.float32(value)
    return number


def _typed(value: Value) -> Argument:
    return kernel_number(value) if isinstance(value, (int, float)) else value
