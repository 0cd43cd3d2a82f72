"""GPU device based on NVIDIA's cuda-bindings, which are wheels and need no compiler."""

from __future__ import annotations

import atexit
import ctypes
import struct
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError, importing
from .cuda_device import (
    STREAM_NON_BLOCKING,
    CudaDevice,
    CudaStream,
    own_stream,
    packed_number,
    packing_of,
    process_is_ending,
)
from .device import Buffer, Launch, Module, Stream
from .driver import DriverApi


class CudaBindingsDevice(CudaDevice):
    """One NVIDIA GPU through cuda-bindings (12.9 and 13), used by the thread that creates this object.

    An object that is destroyed in another thread is freed there: the driver lets any thread use a primary context.

    Args:
        ordinal: index of the GPU in the driver's order.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
        DeviceError: there is no driver or no such GPU, or cuda-bindings fails to load.
    """

    def _open(self, ordinal: int) -> tuple[type[Exception], ...]:
        self._context = _primary_context(ordinal)
        return ()  # cuda-bindings return statuses and do not raise

    def may_free(self) -> bool:
        """True until the process ends; any thread can free driver objects."""
        return not process_is_ending.is_set()

    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """Allocate page-locked host memory, [nbytes] uint8."""
        with self.active(f"page-locking {nbytes / 2**20:.1f} MiB of memory"):
            address = self._context.call("cuMemHostAlloc", nbytes, 0)
            return np.asarray(_HostMemory(_Owned(self._context, "cuMemFreeHost", address), nbytes))

    def _push(self) -> None:
        self._context.push()

    def _pop(self) -> None:
        self._context.pop()

    def _load_image(self, image: bytes) -> Module:
        handle = self._context.call("cuModuleLoadData", image)
        return _CudaBindingsModule(self, self._context, _Owned(self._context, "cuModuleUnload", handle))

    def _new_memory(self, nbytes: int) -> Any:  # noqa: ANN401 - as in the base
        return _Owned(self._context, "cuMemFree", self._context.call("cuMemAlloc", nbytes))

    def _new_stream(self) -> tuple[Any, int]:
        stream = _Owned(self._context, "cuStreamDestroy", self._context.call("cuStreamCreate", STREAM_NON_BLOCKING))
        return stream, int(stream)

    def _fill(self, buffer: Buffer, word: int, stream: CudaStream) -> None:
        self._context.call("cuMemsetD32Async", buffer.address, word, buffer.nbytes // 4, stream.handle)

    def _copy_in(self, buffer: Buffer, array: NDArray[Any], stream: CudaStream) -> None:
        self._context.call("cuMemcpyHtoDAsync", buffer.address, array.ctypes.data, array.nbytes, stream.handle)

    def _copy_out(self, array: NDArray[Any], buffer: Buffer, stream: CudaStream) -> None:
        self._context.call("cuMemcpyDtoHAsync", array.ctypes.data, buffer.address, array.nbytes, stream.handle)

    def _copy(self, buffer: Buffer, address: int, nbytes: int, stream: CudaStream) -> None:
        self._context.call("cuMemcpyDtoDAsync", buffer.address, address, nbytes, stream.handle)


class _PrimaryContext:
    """Primary context of a GPU, retained until the process ends; usable in any thread."""

    def __init__(self, ordinal: int) -> None:
        self._cuda = import_cuda_bindings()
        self._driver = DriverApi()
        self.call("cuInit", 0)
        self._gpu = self.call("cuDeviceGet", ordinal)
        self._handle = self.call("cuDevicePrimaryCtxRetain", self._gpu)
        atexit.register(self._leave)

    def call(self, name: str, *args: object) -> Any:  # noqa: ANN401 - cuda-bindings have no types
        """Call one function and return its result without the status.

        Raises:
            CallError: the call did not succeed.
            DeviceError: the driver lacks the function.
        """
        function: Callable[..., Any] = getattr(self._cuda, name)
        try:
            status, *results = function(*args)
        except RuntimeError as exc:
            raise DeviceError(f"the driver lacks {name}: {exc}. Install a newer driver") from exc
        self._driver.check(name, int(status))
        return results[0] if results else None

    def push(self) -> None:
        """Make this the calling thread's current context."""
        self.call("cuCtxPushCurrent", self._handle)

    def pop(self) -> None:
        """Restore the previous current context."""
        self.call("cuCtxPopCurrent")

    def free(self, function: str, handle: Any) -> None:  # noqa: ANN401
        """Free an object of this context, in any thread."""
        if process_is_ending.is_set():
            return  # freed with the process
        self.push()
        try:
            self.call(function, handle)
        finally:
            self.pop()

    def _leave(self) -> None:
        process_is_ending.set()
        self.call("cuDevicePrimaryCtxRelease", self._gpu)


_contexts: dict[int, _PrimaryContext] = {}
_opening = threading.Lock()


def _primary_context(ordinal: int) -> _PrimaryContext:
    """Primary context of a GPU, shared by all threads."""
    with _opening:
        if ordinal not in _contexts:
            _contexts[ordinal] = _PrimaryContext(ordinal)
        return _contexts[ordinal]


def import_cuda_bindings() -> Any:  # noqa: ANN401 - cuda-bindings have no types
    """Import `cuda.bindings.driver`, which loads the CUDA driver on the first call.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
        DeviceError: cuda-bindings is installed but fails to load.
    """
    with importing("gpu-wheels", purpose="running on a GPU"):
        try:
            import cuda.bindings.driver
        except ModuleNotFoundError:
            raise
        except (ImportError, OSError, RuntimeError) as exc:
            raise DeviceError(
                f"cuda-bindings is installed but fails to load ({exc}). Reinstall it: "
                "pip install --force-reinstall --no-deps cuda-bindings"
            ) from exc
    return cuda.bindings.driver


class _Owned:
    """Owner of a driver object, which is freed with the last reference; int() is the handle or address."""

    def __init__(self, context: _PrimaryContext, free: str, handle: Any) -> None:  # noqa: ANN401
        self._context = context
        self._free = free
        self.handle = handle

    def __int__(self) -> int:
        return int(self.handle)

    def __del__(self) -> None:
        self._context.free(self._free, self.handle)


class _HostMemory:
    """Page-locked memory for NumPy; arrays over it keep this object alive."""

    def __init__(self, memory: _Owned, nbytes: int) -> None:
        self._memory = memory
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (int(memory), False), "version": 3}


class _CudaBindingsModule:
    def __init__(self, device: CudaBindingsDevice, context: _PrimaryContext, native: _Owned) -> None:
        self._device = device
        self._context = context
        self._native = native
        self._functions: dict[str, tuple[Any, struct.Struct]] = {}

    def launch(self, launch: Launch, stream: Stream) -> None:
        with self._device.active(f"launching {launch.kernel}"):
            known = self._functions.get(launch.kernel)
            if known is None:
                function = self._context.call("cuModuleGetFunction", self._native.handle, launch.kernel.encode())
                known = self._functions[launch.kernel] = (function, struct.Struct(packing_of(launch)))
            function, packing = known
            values = ctypes.create_string_buffer(packing.pack(*map(packed_number, launch.args)), max(packing.size, 1))
            extra = _Extra(1, ctypes.addressof(values), 2, ctypes.pointer(ctypes.c_size_t(packing.size)), None)
            shape = (launch.grid, 1, 1, *launch.block, 1)
            handle = own_stream(stream).handle
            self._context.call("cuLaunchKernel", function, *shape, 0, handle, 0, ctypes.addressof(extra))


class _Extra(ctypes.Structure):
    """Packed kernel arguments as cuLaunchKernel takes them: key-value pairs and an end mark."""

    _fields_ = (
        ("buffer_key", ctypes.c_void_p),  # CU_LAUNCH_PARAM_BUFFER_POINTER, 1
        ("buffer", ctypes.c_void_p),
        ("size_key", ctypes.c_void_p),  # CU_LAUNCH_PARAM_BUFFER_SIZE, 2
        ("size", ctypes.POINTER(ctypes.c_size_t)),
        ("end", ctypes.c_void_p),  # CU_LAUNCH_PARAM_END, 0
    )
