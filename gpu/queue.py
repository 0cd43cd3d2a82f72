"""Launch shapes, arguments and buffer regions, shared by all launch sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .._native import KERNEL_CONSTANTS
from .device import Argument, Buffer, Device, KernelSource, Launch, Stream

#: Threads per block; mirrors kThreads in the kernels.
THREADS = KERNEL_CONSTANTS["kThreads"]

#: Kernel argument: a buffer, a 32-bit integer, a 32-bit float, or a null pointer.
Value: TypeAlias = Buffer | int | float | None


@dataclass(frozen=True, slots=True)
class Region:
    """Region of a buffer, usable as a buffer.

    Attributes:
        whole: the buffer, kept alive.
        offset: offset of the first byte.
        nbytes: size in bytes.
    """

    whole: Buffer
    offset: int
    nbytes: int

    @property
    def address(self) -> int:
        """Device pointer."""
        return self.whole.address + self.offset


def ceil_div(a: int, b: int) -> int:
    """Quotient, rounded up."""
    return -(-a // b)


class KernelQueue:
    """Queues kernels of one source in a stream.

    Args:
        device: the GPU.
        stream: the stream.
        source: the kernels.
    """

    def __init__(self, device: Device, stream: Stream, source: KernelSource) -> None:
        self.device = device
        self.stream = stream
        self._module = device.load(source)
        self._max_blocks = device.properties.multiprocessors * KERNEL_CONSTANTS["kBlocksPerMultiprocessor"]

    def each(self, kernel: str, count: int, *args: Value) -> None:
        """Launch one thread per item."""
        self._launch(kernel, min(ceil_div(count, THREADS), self._max_blocks), (THREADS, 1), args)

    def tiles(self, kernel: str, blocks: int, *args: Value, block: tuple[int, int] = (THREADS, 1)) -> None:
        """Launch exactly `blocks` blocks."""
        self._launch(kernel, blocks, block, args)

    def fill(self, buffer: Buffer, word: int) -> None:
        """Queue setting every 32-bit word of a buffer."""
        self.device.fill(buffer, word, self.stream)

    def _launch(self, kernel: str, grid: int, block: tuple[int, int], args: Sequence[Value]) -> None:
        self._module.launch(Launch(kernel, grid, block, [_typed(value) for value in args]), self.stream)


def kernel_number(value: float) -> np.int32 | np.float32:
    """Convert a Python number to the kernel parameter's type: int32 for int, float32 for float."""
    number: np.int32 | np.float32 = np.int32(value) if isinstance(value, int) else np.float32(value)
    return number


def _typed(value: Value) -> Argument:
    return kernel_number(value) if isinstance(value, (int, float)) else value
