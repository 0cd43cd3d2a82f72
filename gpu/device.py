"""Protocol of a GPU for orchestration code; `open_device` opens a real GPU, and tests use an emulated one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .toolchain import files_of

#: Kernel argument: a buffer or None for a pointer, or a NumPy scalar of the parameter's exact type for a value.
Argument: TypeAlias = "Buffer | np.generic | None"


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """Properties of a GPU that launch sequences depend on.

    Attributes:
        name: name reported by the driver.
        compute_capability: (major, minor).
        multiprocessors: number of multiprocessors; at least as many blocks run at once.
        total_bytes: size of the device's memory.
        cuda: (major, minor) of the newest CUDA version that its driver supports.
    """

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    total_bytes: int
    cuda: tuple[int, int]


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One CUDA translation unit.

    Attributes:
        path: the .cu file; included files are beside it, or in `includes`.
        flags: compiler flags that affect results.
        includes: folders of further headers, which are included by their path from the package's root.
    """

    path: Path
    flags: tuple[str, ...] = ()
    includes: tuple[Path, ...] = ()

    def files(self) -> list[Path]:
        """The source and all files that it may include, in a fixed order."""
        return files_of(self.path, self.includes)


class Buffer(Protocol):
    """Device memory, freed with the last reference."""

    @property
    def address(self) -> int:
        """Device pointer."""
        ...

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        ...


class Stream(Protocol):
    """Stream of work, which runs in the order in which it was queued."""

    @property
    def handle(self) -> int:
        """The driver's handle, for libraries that queue work themselves."""
        ...

    def wait_for(self, event: Event) -> None:
        """Queue a wait for an event of another stream, without blocking the host."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued so far is done.

        Raises:
            DeviceError: queued work failed.
        """
        ...


class Event(Protocol):
    """Point in a stream."""

    def record(self, stream: Stream) -> None:
        """Record the event at the current end of a stream; in a graph, every replay records it again."""
        ...

    def synchronize(self) -> None:
        """Wait until the event is reached.

        Raises:
            DeviceError: work before the event failed.
        """
        ...

    def elapsed_ms(self, since: Event) -> float:
        """Milliseconds since an earlier event; waits for this one."""
        ...


class Module(Protocol):
    """Loaded kernels."""

    def launch(self, launch: Launch, stream: Stream) -> None:
        """Queue one launch.

        Raises:
            DeviceError: the kernel does not exist, its arguments do not match, or the driver fails.
        """
        ...


class Graph(Protocol):
    """Recorded sequence of work."""

    def replay(self, stream: Stream) -> None:
        """Queue the recorded work again, with the same arguments."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch.

    Attributes:
        kernel: name of the kernel.
        grid: number of blocks.
        block: threads per block along x and y.
        args: arguments in the kernel's order.
    """

    kernel: str
    grid: int
    block: tuple[int, int]
    args: Sequence[Argument]


@runtime_checkable
class Device(Protocol):
    """A real or emulated GPU, used by one thread at a time."""

    @property
    def properties(self) -> DeviceProperties:
        """Properties of the GPU."""
        ...

    def active(self, doing: str) -> AbstractContextManager[None]:
        """Make this GPU current in a block, for libraries that use it themselves; error messages start with `doing`.

        Raises:
            DeviceError: the driver fails, or the calling thread did not create the device.
        """
        ...

    def free_bytes(self) -> int:
        """Bytes that can still be allocated."""
        ...

    def load(self, source: KernelSource) -> Module:
        """Load compiled kernels, or compile them.

        Raises:
            DeviceError: neither is possible, or compilation fails; the message then ends with the compiler's log.
        """
        ...

    def allocate(self, nbytes: int) -> Buffer:
        """Allocate uninitialized memory, aligned to 256 bytes.

        Raises:
            DeviceError: there is not enough memory.
        """
        ...

    def stream(self) -> Stream:
        """Create a stream that is independent of all others."""
        ...

    def event(self) -> Event:
        """Create an event, which can be recorded many times."""
        ...

    def record(self, stream: Stream) -> Event:
        """Create an event and record it."""
        ...

    def fill(self, buffer: Buffer, word: int, stream: Stream) -> None:
        """Queue setting every 32-bit word of a buffer to `word`; the buffer's size is a multiple of 4."""
        ...

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queue a copy from a C-contiguous host array of any shape, which may change after this returns."""
        ...

    def download(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Copy to a C-contiguous host array of any shape, and wait for everything queued before."""
        ...

    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """Allocate page-locked host memory [nbytes] uint8, for asynchronous copies.

        Raises:
            DeviceError: there is not enough memory.
        """
        ...

    def upload_async(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queue a copy from a page-locked array of any shape, which is read when the stream reaches the copy."""
        ...

    def download_async(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Queue a copy to a page-locked array of any shape, which is written when the stream reaches the copy."""
        ...

    def copy_from_address(self, buffer: Buffer, address: int, nbytes: int, stream: Stream) -> None:
        """Queue a copy from memory of this device that the caller owns."""
        ...

    def wait_for_others(self) -> None:
        """Wait for all other work on this device, before its results are read."""
        ...

    def capture(self, queue: Callable[[], None], stream: Stream) -> Graph:
        """Record what `queue` puts into `stream`, without running it; `queue` must neither allocate nor wait.

        Raises:
            DeviceError: the driver cannot record it.
        """
        ...
