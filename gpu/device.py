"""What orchestration code needs of a GPU. `open_device` opens a real one; the tests plug in an emulated one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .toolchain import files_of

Argument: TypeAlias = "Buffer | np.generic | None"
"""What a kernel takes: a buffer or None for a pointer, a NumPy scalar of the parameter's exact type for a value."""


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """What a launch sequence is fitted to.

    Attributes:
        name: as the driver reports it.
        compute_capability: (major, minor).
        multiprocessors: how many blocks run at once, at least.
        total_bytes: memory of the device.
        cuda: (major, minor) of the newest CUDA that its driver runs.
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
        path: the .cu file; files that it includes lie beside it, or in `includes`.
        flags: compiler flags that change what is computed.
        includes: folders of further headers, which are included by their path from the package's root.
    """

    path: Path
    flags: tuple[str, ...] = ()
    includes: tuple[Path, ...] = ()

    def files(self) -> list[Path]:
        """The unit and everything that it may include, in a fixed order."""
        return files_of(self.path, self.includes)


class Buffer(Protocol):
    """Memory on the device; freed when the last reference goes."""

    @property
    def address(self) -> int:
        """The device pointer."""
        ...

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        ...


class Stream(Protocol):
    """A queue of work; what is queued on one stream runs in order."""

    @property
    def handle(self) -> int:
        """The driver's own, for libraries that queue work by themselves."""
        ...

    def wait_for(self, event: Event) -> None:
        """Queues waiting for a point in another stream; the host goes on."""
        ...

    def synchronize(self) -> None:
        """Waits until everything queued so far is done.

        Raises:
            DeviceError: some of it failed.
        """
        ...


class Event(Protocol):
    """A point in a stream."""

    def record(self, stream: Stream) -> None:
        """Moves the point to the present end of a stream; in a graph, to where each replay gets there."""
        ...

    def synchronize(self) -> None:
        """Waits until the point is reached.

        Raises:
            DeviceError: some of the work before it failed.
        """
        ...

    def elapsed_ms(self, since: Event) -> float:
        """Milliseconds between two events that have both been reached; waits for this one."""
        ...


class Module(Protocol):
    """Loaded kernels."""

    def launch(self, launch: Launch, stream: Stream) -> None:
        """Queues one launch.

        Raises:
            DeviceError: the kernel does not exist, its arguments do not fit, or the driver refuses.
        """
        ...


class Graph(Protocol):
    """A recorded sequence of work."""

    def replay(self, stream: Stream) -> None:
        """Queues all of it again, with the arguments of the recording."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch.

    Attributes:
        kernel: its name.
        grid: number of blocks.
        block: threads of a block along x and y.
        args: in the kernel's order.
    """

    kernel: str
    grid: int
    block: tuple[int, int]
    args: Sequence[Argument]


class Device(Protocol):
    """A GPU, or what stands in for one. For one thread at a time."""

    @property
    def properties(self) -> DeviceProperties:
        """What it is."""
        ...

    def active(self, doing: str) -> AbstractContextManager[None]:
        """Makes this GPU current for libraries that use it by themselves; `doing` is what messages say of it.

        Raises:
            DeviceError: the driver fails, or this is another thread than the device's.
        """
        ...

    def free_bytes(self) -> int:
        """Memory that can still be allocated."""
        ...

    def load(self, source: KernelSource) -> Module:
        """Loads kernels that are compiled already, or compiles them.

        Raises:
            DeviceError: neither is possible, or they do not compile; then the message ends with the compiler's log.
        """
        ...

    def allocate(self, nbytes: int) -> Buffer:
        """Memory with undefined content, aligned to 256 bytes.

        Raises:
            DeviceError: there is not enough.
        """
        ...

    def stream(self) -> Stream:
        """A new stream, independent of all others."""
        ...

    def event(self) -> Event:
        """A point in a stream, to be recorded again and again."""
        ...

    def record(self, stream: Stream) -> Event:
        """A new event, recorded."""
        ...

    def fill(self, buffer: Buffer, word: int, stream: Stream) -> None:
        """Queues setting every 32-bit word of a buffer, whose size is a multiple of 4, to `word`."""
        ...

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queues a copy from the host. The array is C-contiguous and may change once this returns."""
        ...

    def download(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Copies to a C-contiguous host array; everything queued before is done when this returns."""
        ...

    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked memory of the host, which copies to and from the device pass without a detour.

        Raises:
            DeviceError: there is not enough.
        """
        ...

    def upload_async(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queues a copy from page-locked memory, which is read when the stream gets there."""
        ...

    def download_async(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Queues a copy to page-locked memory, which is written when the stream gets there."""
        ...

    def copy_from_address(self, buffer: Buffer, address: int, nbytes: int, stream: Stream) -> None:
        """Queues a copy from memory of this device that someone else owns."""
        ...

    def wait_for_others(self) -> None:
        """Waits for the work of everyone else on this device, whose results are about to be read."""
        ...

    def capture(self, queue: Callable[[], None], stream: Stream) -> Graph:
        """Records what `queue` puts into `stream`, without running it. `queue` allocates nothing and waits for nothing.

        Raises:
            DeviceError: the driver cannot record it.
        """
        ...
