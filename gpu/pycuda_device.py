"""A GPU through PyCUDA."""

from __future__ import annotations

import atexit
import ctypes
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError, importing
from .device import Buffer, DeviceProperties, Event, Graph, KernelSource, Launch, Module, Stream
from .driver_api import DriverApi
from .images import load_kernels

_RECORD_EXTERNAL = 1
"""CU_EVENT_RECORD_EXTERNAL: the event is recorded whenever the graph runs."""

_POOL_SHARE = 8
"""Up to this part of the device's memory is kept for later buffers."""

_STREAM_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING."""


class PyCudaDevice:
    """One NVIDIA GPU, for the thread that makes this object.

    The device's primary context is retained, the one that PyTorch and the CUDA runtime use, so pointers can be
    exchanged with them. It is current only while a method runs: nothing of the caller's contexts changes. PyCUDA ties
    contexts to threads, so each thread makes its own `PyCudaDevice`; they share the memory and the work of one GPU.

    Args:
        ordinal: which GPU, in the driver's order.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        DeviceError: there is no driver, or no such GPU.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._cuda = _import_driver()
        try:
            self._cuda.init()
            count = self._cuda.Device.count()
        except self._cuda.Error as exc:
            raise DeviceError(f"no GPU can be used: the CUDA driver reports {exc}. See nvidia-smi") from exc
        if not 0 <= ordinal < count:
            raise DeviceError(f"there is no GPU {ordinal}: the CUDA driver sees {count}, numbered from 0")
        self.thread = threading.get_ident()
        gpu = self._cuda.Device(ordinal)
        self.properties = DeviceProperties(
            name=gpu.name(),
            compute_capability=gpu.compute_capability(),
            multiprocessors=gpu.get_attribute(self._cuda.device_attribute.MULTIPROCESSOR_COUNT),
            total_bytes=gpu.total_memory(),
            cuda=_major_minor(self._cuda.get_driver_version()),
        )
        self._context = _primary_context(gpu, ordinal)
        self.driver = DriverApi()
        self.is_capturing = False
        self._pool = _Pool(self.properties.total_bytes // _POOL_SHARE)

    @contextmanager
    def active(self, doing: str) -> Iterator[None]:
        """Makes the context current; errors of the driver come out as DeviceError.

        Raises:
            DeviceError: the driver failed, or another thread than the one that made the device calls.
        """
        if threading.get_ident() != self.thread:
            raise DeviceError(f"{doing} from another thread than made the PyCudaDevice: make one in each thread")
        try:
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()
        except self._cuda.Error as exc:
            raise DeviceError(f"{doing} failed on {self.properties.name}: {exc}") from exc

    def may_free(self) -> bool:
        """Whether things of the driver can be freed here and now.

        In another thread, or when the process ends, the context cannot be made current: the driver frees with it.
        """
        return threading.get_ident() == self.thread and not _is_ending.is_set()

    def free_bytes(self) -> int:
        """Memory that can still be allocated, what the pool holds unused included."""
        with self.active("asking for free memory"):
            free, _ = self._cuda.mem_get_info()
            return int(free) + self._pool.nbytes

    def load(self, source: KernelSource) -> Module:
        """Loads the package's compiled kernels, or compiles them for this GPU."""

        def give_to_driver(image: Path) -> Module:
            with self.active(f"loading {image.name}"):
                return _PyCudaModule(self, self._cuda.module_from_buffer(image.read_bytes()))

        return load_kernels(source, self.properties.compute_capability, self.properties.cuda, give_to_driver)

    def allocate(self, nbytes: int) -> Buffer:
        """Memory from this device's pool."""
        with self.active(f"allocating {nbytes / 2**20:.1f} MiB of GPU memory"):
            allocation = self._pool.take(nbytes)
            if allocation is None:
                try:
                    allocation = self._cuda.mem_alloc(nbytes)
                except self._cuda.MemoryError:
                    self._pool.shrink(0)
                    allocation = self._cuda.mem_alloc(nbytes)
            return _PyCudaBuffer(self._pool, allocation, nbytes)

    def stream(self) -> Stream:
        """A stream that does not wait for the legacy default stream."""
        with self.active("making a stream"):
            return _PyCudaStream(self, self._cuda.Stream(_STREAM_NON_BLOCKING))

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
            self._cuda.memset_d32_async(buffer.address, word, buffer.nbytes // 4, _own(stream).queue)

    def upload(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queues a copy from the host; the driver has read pageable memory when this returns."""
        with self.active("copying to the GPU"):
            self._cuda.memcpy_htod_async(buffer.address, array, _own(stream).queue)

    def download(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Copies to the host and waits for it."""
        with self.active("copying from the GPU"):
            self._cuda.memcpy_dtoh_async(array, buffer.address, _own(stream).queue)
            _own(stream).queue.synchronize()

    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked memory of the host."""
        with self.active(f"page-locking {nbytes / 2**20:.1f} MiB of memory"):
            memory: NDArray[np.uint8] = self._cuda.pagelocked_empty(nbytes, np.uint8)
            return memory

    def upload_async(self, buffer: Buffer, array: NDArray[Any], stream: Stream) -> None:
        """Queues a copy from page-locked memory."""
        with self.active("copying to the GPU"):
            self._cuda.memcpy_htod_async(buffer.address, array, _own(stream).queue)

    def download_async(self, array: NDArray[Any], buffer: Buffer, stream: Stream) -> None:
        """Queues a copy to page-locked memory."""
        with self.active("copying from the GPU"):
            self._cuda.memcpy_dtoh_async(array, buffer.address, _own(stream).queue)

    def copy_from_address(self, buffer: Buffer, address: int, nbytes: int, stream: Stream) -> None:
        """Queues a copy from memory of this GPU that someone else owns."""
        with self.active("copying on the GPU"):
            self._cuda.memcpy_dtod_async(buffer.address, address, nbytes, _own(stream).queue)

    def wait_for_others(self) -> None:
        """Waits for all streams of the primary context."""
        with self.active("waiting for the GPU"):
            self._cuda.Context.synchronize()

    def capture(self, queue: Callable[[], None], stream: Stream) -> Graph:
        """Records a CUDA graph."""
        with self.active("recording a CUDA graph"):
            self.is_capturing = True
            try:
                return _CudaGraph(self, self.driver.capture(queue, _own(stream).handle))
            finally:
                self.is_capturing = False


def _major_minor(version: int) -> tuple[int, int]:
    """13020 → (13, 2)."""
    return version // 1000, version % 1000 // 10


_thread_contexts = threading.local()
_all_contexts: list[Any] = []
_is_ending = threading.Event()


def _primary_context(gpu: Any, ordinal: int) -> Any:  # noqa: ANN401
    """This thread's handle of a GPU's primary context, kept until the process ends.

    PyCUDA's destructor of the handle detaches a primary context as if it were one that PyCUDA made, which fails and
    can abort the process. An explicit detach() releases it properly, but only once everything in it is gone: at exit.
    In a thread that has ended it does nothing.
    """
    contexts: dict[int, Any] = _thread_contexts.__dict__.setdefault("by_ordinal", {})
    if ordinal not in contexts:
        contexts[ordinal] = gpu.retain_primary_context()
        _all_contexts.append(contexts[ordinal])
        atexit.register(_leave, contexts[ordinal])
    return contexts[ordinal]


def _leave(context: Any) -> None:  # noqa: ANN401
    _is_ending.set()
    context.detach()


def _import_driver() -> Any:  # noqa: ANN401 - PyCUDA has no types
    """`pycuda.driver`, which fails to load where there is no driver library."""
    with importing("gpu", purpose="running on a GPU"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyCUDA warns of what it then raises
        try:
            import pycuda.driver
        except ModuleNotFoundError:
            raise
        except ImportError as exc:
            raise DeviceError(
                f"no GPU can be used: PyCUDA cannot load the CUDA driver ({exc}). See nvidia-smi"
            ) from exc
    return pycuda.driver


class _Pool:
    """Memory of freed buffers, for the next ones of exactly that size.

    PyCUDA's own pool rounds sizes up, and ends the process when a buffer is freed while no context is current. Giving
    memory back to this one makes no call to the driver, so that any thread may do it, the garbage collector included.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._free: deque[tuple[int, Any]] = deque()  # the longest unused first

    @property
    def nbytes(self) -> int:
        return sum(nbytes for nbytes, _ in tuple(self._free))

    def give(self, nbytes: int, allocation: Any) -> None:  # noqa: ANN401
        self._free.append((nbytes, allocation))

    def take(self, nbytes: int) -> Any:  # noqa: ANN401
        """An allocation of this size or None. Frees what is too much, so the context must be current."""
        self.shrink(self._most_bytes)
        for entry in tuple(self._free):
            if entry[0] == nbytes:
                self._free.remove(entry)
                return entry[1]
        return None

    def shrink(self, most_bytes: int) -> None:
        while self.nbytes > most_bytes:
            self._free.popleft()


class _PyCudaBuffer:
    def __init__(self, pool: _Pool, allocation: Any, nbytes: int) -> None:  # noqa: ANN401
        self._pool = pool
        self._allocation = allocation
        self.address = int(allocation)
        self.nbytes = nbytes

    def __del__(self) -> None:
        self._pool.give(self.nbytes, self._allocation)


class _PyCudaStream:
    def __init__(self, device: PyCudaDevice, queue: Any) -> None:  # noqa: ANN401
        self._device = device
        self.queue = queue  # PyCUDA's
        self.handle = int(queue.handle)

    def wait_for(self, event: Event) -> None:
        with self._device.active("waiting for an event"):
            self._device.driver.call(
                "cuStreamWaitEvent", ctypes.c_void_p(self.handle), _own_event(event).handle, ctypes.c_uint(0)
            )

    def synchronize(self) -> None:
        with self._device.active("running on the GPU"):
            self.queue.synchronize()


class _CudaEvent:
    """An event of the driver: PyCUDA hides the handle of its own, and cannot make one part of a graph."""

    def __init__(self, device: PyCudaDevice, handle: ctypes.c_void_p) -> None:
        self._device = device
        self.handle = handle

    def record(self, stream: Stream) -> None:
        with self._device.active("recording an event"):
            target = ctypes.c_void_p(_own(stream).handle)
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
        if self._device.may_free():
            with self._device.active("freeing an event"):
                self._device.driver.call("cuEventDestroy_v2", self.handle)


def _own_event(event: Event) -> _CudaEvent:
    """The event as one of this module's."""
    if not isinstance(event, _CudaEvent):
        raise DeviceError(f"an event of another device: expected one of PyCudaDevice.event(), got {event!r}")
    return event


def _own(stream: Stream) -> _PyCudaStream:
    """The stream as one of this module's."""
    if not isinstance(stream, _PyCudaStream):
        raise DeviceError(f"a stream of another device: expected one of PyCudaDevice.stream(), got {stream!r}")
    return stream


class _PyCudaModule:
    def __init__(self, device: PyCudaDevice, handle: Any) -> None:  # noqa: ANN401
        self._device = device
        self._handle = handle
        self._functions: dict[str, Any] = {}

    def launch(self, launch: Launch, stream: Stream) -> None:
        with self._device.active(f"launching {launch.kernel}"):
            function = self._functions.get(launch.kernel)
            if function is None:
                function = self._handle.get_function(launch.kernel)
                # Type codes of the struct module; pointers are passed as integers.
                function.prepare("".join(a.dtype.char if isinstance(a, np.generic) else "P" for a in launch.args))
                self._functions[launch.kernel] = function
            values = [_plain(argument) for argument in launch.args]
            block = (*launch.block, 1)
            function.prepared_async_call((launch.grid, 1), block, _own(stream).queue, *values)


def _plain(argument: Buffer | np.generic | None) -> int | float:
    """The Python number that PyCUDA packs for an argument."""
    if argument is None:
        return 0
    if isinstance(argument, np.generic):
        number: int | float = argument.item()
        return number
    return argument.address


class _CudaGraph:
    def __init__(self, device: PyCudaDevice, executable: ctypes.c_void_p) -> None:
        self._device = device
        self._executable = executable

    def replay(self, stream: Stream) -> None:
        with self._device.active("replaying a CUDA graph"):
            self._device.driver.call("cuGraphLaunch", self._executable, ctypes.c_void_p(_own(stream).handle))

    def __del__(self) -> None:
        if self._device.may_free():
            with self._device.active("freeing a CUDA graph"):
                self._device.driver.call("cuGraphExecDestroy", self._executable)
