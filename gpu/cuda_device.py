"""Base class of NVIDIA GPU devices, independent of the library: threads, memory, events and graphs."""

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

#: CU_EVENT_RECORD_EXTERNAL: the event is recorded whenever the graph runs.
_RECORD_EXTERNAL = 1

#: The pool keeps at most this fraction (1/8) of the device's memory.
_POOL_SHARE = 8

#: CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream.
STREAM_NON_BLOCKING = 1

#: Set when the interpreter exits, before contexts are released; afterwards nothing can be freed.
process_is_ending = threading.Event()


class CudaDevice(ABC):
    """One NVIDIA GPU, used by the thread that creates this object.

    The device retains the GPU's primary context, which PyTorch and the CUDA runtime use too, so pointers can be
    exchanged with them. The context is current only while a method runs, so the caller's contexts do not change. Each
    thread creates its own device; all devices of a GPU share its memory.

    Subclasses implement what their library provides: memory, streams, modules and copies. Their methods run while the
    context is current. Events and graphs call the driver directly, because PyCUDA hides the handles of its events and
    does not support graphs.

    Args:
        ordinal: index of the GPU in the driver's order.

    Raises:
        DeviceError: there is no driver or no such GPU, or the library fails.
        MissingDependencyError: the library is not installed.
    """

    def __init__(self, ordinal: int = 0) -> None:
        found = find_driver()  # first, because without a GPU installing a library does not help
        if not 0 <= ordinal < len(found.gpus):
            raise DeviceError(f"there is no GPU {ordinal}: the CUDA driver reports {len(found.gpus)}, numbered from 0")
        gpu = found.gpus[ordinal]
        self.driver = DriverApi()
        self.ordinal = ordinal
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

    def __reduce__(self) -> tuple[type[CudaDevice], tuple[int]]:
        """Pickle as the GPU's index: the other process opens the same one."""
        return type(self), (self.ordinal,)

    @contextmanager
    def active(self, doing: str) -> Iterator[None]:
        """Make the context current in this block, and convert driver errors to DeviceError.

        Raises:
            DeviceError: the driver failed, or the calling thread did not create the device.
        """
        if threading.get_ident() != self.thread:
            raise DeviceError(
                f"{doing} from a thread that did not create this {type(self).__name__}. Create one in each thread"
            )
        try:
            with self._current():
                yield
        except self._errors as exc:
            raise DeviceError(f"{doing} failed on {self.properties.name}: {exc}") from exc

    def free(self, function: str, handle: ctypes.c_void_p) -> None:
        """Free a driver object, if possible; otherwise it is freed with the process."""
        if self.may_free():
            with self._current():
                self.driver.call(function, handle)

    @abstractmethod
    def may_free(self) -> bool:
        """True if the context can be made current now, in this thread, to free its objects."""

    def free_bytes(self) -> int:
        """Bytes that can still be allocated, including unused memory of the pool."""
        with self.active("asking for free memory"):
            return self.driver.free_bytes() + self._pool.nbytes

    def load(self, source: KernelSource) -> Module:
        """Load the package's compiled kernels, or compile them for this GPU."""

        def give_to_driver(image: Path) -> Module:
            with self.active(f"loading {image.name}"):
                return self._load_image(image.read_bytes())

        return load_kernels(source, self.properties.compute_capability, self.properties.cuda, give_to_driver)

    def allocate(self, nbytes: int) -> Buffer:
        """Allocate memory from this device's pool."""
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
        """Create a stream that does not wait for the legacy default stream."""
        with self.active("making a stream"):
            return CudaStream(self, *self._new_stream())

    def event(self) -> Event:
        """Create an event, not recorded yet."""
        with self.active("making an event"):
            handle = ctypes.c_void_p()
            self.driver.call("cuEventCreate", ctypes.byref(handle), ctypes.c_uint(0))
            return _CudaEvent(self, handle)

    def record(self, stream: Stream) -> Event:
        """Create an event and record it in a stream."""
        event = self.event()
        event.record(stream)
        return event

    def fill(self, buffer: Buffer, word: int, stream: Stream) -> None:
        """Queue a fill with 32-bit words."""
        with self.active("filling memory"):
            self._fill(buffer, word, own_stream(stream))

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queue a copy from a host array of any shape; pageable memory has been read when this returns."""
        self.upload_async(buffer, array, stream)

    def download(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Copy to a host array of any shape, and wait for the copy."""
        with self.active("copying from the GPU"):
            self._copy_out(array, buffer, own_stream(stream))
            self.driver.call("cuStreamSynchronize", ctypes.c_void_p(own_stream(stream).handle))

    @abstractmethod
    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """Allocate page-locked host memory, [nbytes] uint8."""

    def upload_async(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queue a copy from a page-locked array of any shape."""
        with self.active("copying to the GPU"):
            self._copy_in(buffer, array, own_stream(stream))

    def download_async(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Queue a copy to a page-locked array of any shape."""
        with self.active("copying from the GPU"):
            self._copy_out(array, buffer, own_stream(stream))

    def copy_from_address(self, buffer: Buffer, address: int, nbytes: int, stream: Stream) -> None:
        """Queue a copy from GPU memory that the caller owns."""
        with self.active("copying on the GPU"):
            self._copy(buffer, address, nbytes, own_stream(stream))

    def wait_for_others(self) -> None:
        """Wait for all streams of the primary context."""
        with self.active("waiting for the GPU"):
            self.driver.call("cuCtxSynchronize")

    def capture(self, queue: Callable[[], None], stream: Stream) -> Graph:
        """Record a CUDA graph."""
        with self.active("recording a CUDA graph"):
            self.is_capturing = True
            try:
                return _CudaGraph(self, self.driver.capture(queue, own_stream(stream).handle))
            finally:
                self.is_capturing = False

    @abstractmethod
    def _open(self, ordinal: int) -> tuple[type[Exception], ...]:
        """Import the library and retain the primary context; returns the library's exception types."""

    @abstractmethod
    def _push(self) -> None:
        """Make the context current."""

    @abstractmethod
    def _pop(self) -> None:
        """Restore the previous current context."""

    @abstractmethod
    def _load_image(self, image: bytes) -> Module:
        """Load a cubin or fatbin into the driver."""

    @abstractmethod
    def _new_memory(self, nbytes: int) -> Any:  # noqa: ANN401 - whatever the library has for it
        """Allocate memory that frees itself; int() of the result is the address."""

    @abstractmethod
    def _new_stream(self) -> tuple[Any, int]:
        """Create a stream: the library's object, which frees itself, and the driver's handle."""

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
    """Stream of a `CudaDevice`.

    Attributes:
        native: the library's stream object, kept alive.
        handle: the driver's handle.
    """

    def __init__(self, device: CudaDevice, native: Any, handle: int) -> None:  # noqa: ANN401
        self._device = device
        self.native = native
        self.handle = handle

    def wait_for(self, event: Event) -> None:
        """Queue a wait for an event of another stream."""
        with self._device.active("waiting for an event"):
            self._device.driver.call(
                "cuStreamWaitEvent", ctypes.c_void_p(self.handle), _own_event(event).handle, ctypes.c_uint(0)
            )

    def synchronize(self) -> None:
        """Wait until everything queued so far is done."""
        with self._device.active("running on the GPU"):
            self._device.driver.call("cuStreamSynchronize", ctypes.c_void_p(self.handle))


class _CudaEvent:
    def __init__(self, device: CudaDevice, handle: ctypes.c_void_p) -> None:
        self._device = device
        self.handle = handle

    def record(self, stream: Stream) -> None:
        with self._device.active("recording an event"):
            target = ctypes.c_void_p(own_stream(stream).handle)
            if self._device.is_capturing:  # otherwise it would only order the graph's nodes and record no time
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
    """Cast to a stream of a CUDA device; raises DeviceError for others."""
    if not isinstance(stream, CudaStream):
        raise DeviceError(f"the stream belongs to another device: expected one of CudaDevice.stream(), got {stream!r}")
    return stream


def _own_event(event: Event) -> _CudaEvent:
    if not isinstance(event, _CudaEvent):
        raise DeviceError(f"the event belongs to another device: expected one of CudaDevice.event(), got {event!r}")
    return event


def packing_of(launch: Launch) -> str:
    """Layout of a launch's arguments, as a format of the struct module."""
    return "".join(each.dtype.char if isinstance(each, np.generic) else "P" for each in launch.args)


def packed_number(argument: Argument) -> int | float:
    """Number to pack for an argument: its value, or the address of a buffer."""
    if argument is None:
        return 0
    if isinstance(argument, np.generic):
        number: int | float = argument.item()
        return number
    return argument.address
