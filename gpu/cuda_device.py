"""An NVIDIA GPU, whichever library makes the calls: threads, memory, events and graphs."""

from __future__ import annotations

import ctypes
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError
from .device import Argument, Buffer, DeviceProperties, Event, Graph, KernelSource, Launch, Module, Stream
from .driver import CallError, DriverApi, find_driver
from .kernel_binaries import load_kernels
from .pool import Pool, PooledBuffer

_RECORD_EXTERNAL = 1
"""CU_EVENT_RECORD_EXTERNAL: the event is recorded whenever the graph runs."""

_POOL_SHARE = 8
"""Up to this part of the device's memory is kept for later buffers."""

STREAM_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream."""

process_is_ending = threading.Event()
"""Set when the interpreter exits, before contexts are released: from then on nothing can be freed."""


class CudaDevice(ABC):
    """One NVIDIA GPU, for the thread that makes this object.

    The device's primary context is retained, the one that PyTorch and the CUDA runtime use, so pointers can be
    exchanged with them. It is current only while a method runs: nothing of the caller's contexts changes. Each thread
    makes its own device; they share the memory and the work of one GPU.

    What a library has of its own for (memory, streams, modules, copies) is in its subclass, whose methods run while
    the context is current. Events and graphs are calls of the driver: PyCUDA hides the handles of its events, and
    knows no graphs.

    Args:
        ordinal: which GPU, in the driver's order.

    Raises:
        DeviceError: there is no driver, or no such GPU, or the library does not work.
        MissingDependencyError: the library is not installed.
    """

    def __init__(self, ordinal: int = 0) -> None:
        found = find_driver()  # first: without a GPU, installing a library would not help
        if not 0 <= ordinal < len(found.gpus):
            raise DeviceError(f"there is no GPU {ordinal}: the CUDA driver sees {len(found.gpus)}, numbered from 0")
        gpu = found.gpus[ordinal]
        self.driver = DriverApi()
        self.thread = threading.get_ident()
        self.properties = DeviceProperties(
            name=gpu.name,
            compute_capability=gpu.compute_capability,
            multiprocessors=self.driver.multiprocessors(ordinal),
            total_bytes=gpu.total_bytes,
            cuda=found.cuda,
        )
        self.is_capturing = False
        self._pool = Pool(gpu.total_bytes // _POOL_SHARE)
        self._errors: tuple[type[Exception], ...] = (CallError, *self._open(ordinal))

    @contextmanager
    def active(self, doing: str) -> Iterator[None]:
        """Makes the context current; errors of the driver come out as DeviceError.

        Raises:
            DeviceError: the driver failed, or another thread than the one that made the device calls.
        """
        if threading.get_ident() != self.thread:
            raise DeviceError(
                f"{doing} from another thread than made the {type(self).__name__}: make one in each thread"
            )
        try:
            with self._current():
                yield
        except self._errors as exc:
            raise DeviceError(f"{doing} failed on {self.properties.name}: {exc}") from exc

    def free(self, function: str, handle: ctypes.c_void_p) -> None:
        """Frees something of the driver, unless only the end of the process can."""
        if self.may_free():
            with self._current():
                self.driver.call(function, handle)

    @abstractmethod
    def may_free(self) -> bool:
        """Whether the context can be made current here and now, to free things in it."""

    def free_bytes(self) -> int:
        """Memory that can still be allocated, what the pool holds unused included."""
        with self.active("asking for free memory"):
            return self.driver.free_bytes() + self._pool.nbytes

    def load(self, source: KernelSource) -> Module:
        """Loads the package's compiled kernels, or compiles them for this GPU."""

        def give_to_driver(image: Path) -> Module:
            with self.active(f"loading {image.name}"):
                return self._load_image(image.read_bytes())

        return load_kernels(source, self.properties.compute_capability, self.properties.cuda, give_to_driver)

    def allocate(self, nbytes: int) -> Buffer:
        """Memory from this device's pool."""
        with self.active(f"allocating {nbytes / 2**20:.1f} MiB of GPU memory"):
            allocation = self._pool.take(nbytes)
            if allocation is None:
                try:
                    allocation = self._new_memory(nbytes)
                except self._errors:
                    if self._pool.nbytes == 0:
                        raise
                    self._pool.shrink(0)
                    allocation = self._new_memory(nbytes)
            return PooledBuffer(self._pool, allocation, nbytes)

    def stream(self) -> Stream:
        """A stream that does not wait for the legacy default stream."""
        with self.active("making a stream"):
            return CudaStream(self, *self._new_stream())

    def event(self) -> Event:
        """A point in a stream, to be recorded."""
        with self.active("making an event"):
            handle = ctypes.c_void_p()
            self.driver.call("cuEventCreate", ctypes.byref(handle), ctypes.c_uint(0))
            return _CudaEvent(self, handle)

    def record(self, stream: Stream) -> Event:
        """Marks a point in a stream."""
        event = self.event()
        event.record(stream)
        return event

    def fill(self, buffer: Buffer, word: int, stream: Stream) -> None:
        """Queues a fill with 32-bit words."""
        with self.active("filling memory"):
            self._fill(buffer, word, own_stream(stream))

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queues a copy from the host; the driver has read pageable memory when this returns."""
        self.upload_async(buffer, array, stream)

    def download(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Copies to the host and waits for it."""
        with self.active("copying from the GPU"):
            self._copy_out(array, buffer, own_stream(stream))
            self.driver.call("cuStreamSynchronize", ctypes.c_void_p(own_stream(stream).handle))

    @abstractmethod
    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked memory of the host."""

    def upload_async(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queues a copy from page-locked memory."""
        with self.active("copying to the GPU"):
            self._copy_in(buffer, array, own_stream(stream))

    def download_async(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Queues a copy to page-locked memory."""
        with self.active("copying from the GPU"):
            self._copy_out(array, buffer, own_stream(stream))

    def copy_from_address(self, buffer: Buffer, address: int, nbytes: int, stream: Stream) -> None:
        """Queues a copy from memory of this GPU that someone else owns."""
        with self.active("copying on the GPU"):
            self._copy(buffer, address, nbytes, own_stream(stream))

    def wait_for_others(self) -> None:
        """Waits for all streams of the primary context."""
        with self.active("waiting for the GPU"):
            self.driver.call("cuCtxSynchronize")

    def capture(self, queue: Callable[[], None], stream: Stream) -> Graph:
        """Records a CUDA graph."""
        with self.active("recording a CUDA graph"):
            self.is_capturing = True
            try:
                return _CudaGraph(self, self.driver.capture(queue, own_stream(stream).handle))
            finally:
                self.is_capturing = False

    @abstractmethod
    def _open(self, ordinal: int) -> tuple[type[Exception], ...]:
        """Imports the library and retains the primary context; gives the library's own errors."""

    @abstractmethod
    def _push(self) -> None:
        """Makes the context current."""

    @abstractmethod
    def _pop(self) -> None:
        """Makes current what was before."""

    @abstractmethod
    def _load_image(self, image: bytes) -> Module:
        """Gives a cubin or fatbin to the driver."""

    @abstractmethod
    def _new_memory(self, nbytes: int) -> Any:  # noqa: ANN401 - whatever the library has for it
        """Memory that frees itself; int() of it is the address."""

    @abstractmethod
    def _new_stream(self) -> tuple[Any, int]:
        """A stream of the library, which frees itself, and the driver's handle of it."""

    @abstractmethod
    def _fill(self, buffer: Buffer, word: int, stream: CudaStream) -> None: ...

    @abstractmethod
    def _copy_in(self, buffer: Buffer, array: NDArray[Any], stream: CudaStream) -> None: ...

    @abstractmethod
    def _copy_out(self, array: NDArray[Any], buffer: Buffer, stream: CudaStream) -> None: ...

    @abstractmethod
    def _copy(self, buffer: Buffer, address: int, nbytes: int, stream: CudaStream) -> None: ...

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._push()
        try:
            yield
        finally:
            self._pop()


class CudaStream:
    """A stream.

    Attributes:
        native: the library's own object, kept alive.
        handle: the driver's.
    """

    def __init__(self, device: CudaDevice, native: Any, handle: int) -> None:  # noqa: ANN401
        self._device = device
        self.native = native
        self.handle = handle

    def wait_for(self, event: Event) -> None:
        """Queues waiting for a point in another stream."""
        with self._device.active("waiting for an event"):
            self._device.driver.call(
                "cuStreamWaitEvent", ctypes.c_void_p(self.handle), _own_event(event).handle, ctypes.c_uint(0)
            )

    def synchronize(self) -> None:
        """Waits until everything queued so far is done."""
        with self._device.active("running on the GPU"):
            self._device.driver.call("cuStreamSynchronize", ctypes.c_void_p(self.handle))


class _CudaEvent:
    def __init__(self, device: CudaDevice, handle: ctypes.c_void_p) -> None:
        self._device = device
        self.handle = handle

    def record(self, stream: Stream) -> None:
        with self._device.active("recording an event"):
            target = ctypes.c_void_p(own_stream(stream).handle)
            if self._device.is_capturing:  # else it would only order the graph's nodes, and show no time
                self._device.driver.call("cuEventRecordWithFlags", self.handle, target, ctypes.c_uint(_RECORD_EXTERNAL))
            else:
                self._device.driver.call("cuEventRecord", self.handle, target)

    def synchronize(self) -> None:
        with self._device.active("running on the GPU"):
            self._device.driver.call("cuEventSynchronize", self.handle)

    def elapsed_ms(self, since: Event) -> float:
        elapsed = ctypes.c_float()
        self.synchronize()
        with self._device.active("reading an event"):
            self._device.driver.call("cuEventElapsedTime", ctypes.byref(elapsed), _own_event(since).handle, self.handle)
        return elapsed.value

    def __del__(self) -> None:
        self._device.free("cuEventDestroy_v2", self.handle)


class _CudaGraph:
    def __init__(self, device: CudaDevice, executable: ctypes.c_void_p) -> None:
        self._device = device
        self._executable = executable

    def replay(self, stream: Stream) -> None:
        with self._device.active("replaying a CUDA graph"):
            self._device.driver.call("cuGraphLaunch", self._executable, ctypes.c_void_p(own_stream(stream).handle))

    def __del__(self) -> None:
        self._device.free("cuGraphExecDestroy", self._executable)


def own_stream(stream: Stream) -> CudaStream:
    """The stream as one of a CUDA device; raises DeviceError for others."""
    if not isinstance(stream, CudaStream):
        raise DeviceError(f"a stream of another device: expected one of CudaDevice.stream(), got {stream!r}")
    return stream


def _own_event(event: Event) -> _CudaEvent:
    if not isinstance(event, _CudaEvent):
        raise DeviceError(f"an event of another device: expected one of CudaDevice.event(), got {event!r}")
    return event


def packing_of(launch: Launch) -> str:
    """How a launch's arguments lie behind each other, in type codes of the struct module."""
    return "".join(each.dtype.char if isinstance(each, np.generic) else "P" for each in launch.args)


def packed_number(argument: Argument) -> int | float:
    """The Python number to pack for an argument."""
    if argument is None:
        return 0
    if isinstance(argument, np.generic):
        number: int | float = argument.item()
        return number
    return argument.address
