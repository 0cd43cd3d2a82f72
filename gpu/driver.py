"""CUDA driver API through ctypes: driver version, GPUs, and the functions that PyCUDA does not wrap."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import DeviceError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256

#: CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating.
_CAPTURE_THREAD_LOCAL = 1

#: CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT.
_MULTIPROCESSOR_COUNT = 16


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, in the driver's order.

    Attributes:
        name: name reported by the driver.
        compute_capability: (major, minor).
        total_bytes: size of its memory.
    """

    name: str
    compute_capability: tuple[int, int]
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Driver:
    """Working CUDA driver and its GPUs.

    Attributes:
        cuda: (major, minor) of the newest CUDA version that it supports.
        gpus: its GPUs, at least one.
    """

    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


class CallError(DeviceError):
    """A driver function failed.

    Attributes:
        status: its CUresult.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class DriverApi:
    """Functions of the driver that every device needs and PyCUDA does not wrap (CUDA driver API, 11.4 on).

    Raises:
        OSError: there is no driver.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_LIBRARY)

    def call(self, name: str, *args: object) -> None:
        """Call one function.

        Raises:
            CallError: the call did not succeed.
        """
        self.check(name, getattr(self._library, name)(*args))

    def check(self, name: str, status: int) -> None:
        """Raise CallError unless `status` is success."""
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise CallError(f"{name} failed with status {status}: {reason}", status)

    def number(self, name: str) -> int:
        """Call a function that writes one int, and return it."""
        number = ctypes.c_int()
        self.call(name, ctypes.byref(number))
        return number.value

    def describe(self, ordinal: int) -> Gpu:
        """Name, compute capability and memory of a GPU."""
        gpu, name = self._gpu(ordinal), ctypes.create_string_buffer(_NAME_BYTES)
        major, minor, nbytes = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
        self.call("cuDeviceGetName", name, ctypes.c_int(_NAME_BYTES), gpu)
        self.call("cuDeviceComputeCapability", ctypes.byref(major), ctypes.byref(minor), gpu)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(nbytes), gpu)
        return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), nbytes.value)

    def multiprocessors(self, ordinal: int) -> int:
        """Number of multiprocessors of a GPU."""
        gpu, count = self._gpu(ordinal), ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(count), ctypes.c_int(_MULTIPROCESSOR_COUNT), gpu)
        return count.value

    def free_bytes(self) -> int:
        """Free memory of the current context's GPU."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def capture(self, queue: Callable[[], None], stream: int) -> ctypes.c_void_p:
        """Record what `queue` puts into a stream, and return the executable graph."""
        handle = ctypes.c_void_p(stream)
        graph = ctypes.c_void_p()
        executable = ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        try:
            queue()
        finally:  # also after an error, to make the stream usable again
            self.call("cuStreamEndCapture", handle, ctypes.byref(graph))
        try:
            self.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            self.call("cuGraphDestroy", graph)
        return executable

    def _gpu(self, ordinal: int) -> ctypes.c_int:
        gpu = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(gpu), ctypes.c_int(ordinal))
        return gpu


def find_driver() -> Driver:
    """Find the CUDA driver of this machine and its GPUs.

    Libraries that need a driver crash or return nonsense without one (TensorRT-RTX returns a dangling pointer), so ask
    this before loading them.

    Raises:
        DeviceError: there is no driver, it does not start, or it sees no GPU.
    """
    try:
        api = DriverApi()
    except OSError as exc:
        raise DeviceError(
            f"no GPU can be used: there is no NVIDIA driver ({exc}). Install one, or use a backend of the CPU"
        ) from exc
    try:
        api.call("cuInit", ctypes.c_uint(0))
        version = api.number("cuDriverGetVersion")
        gpus = tuple(api.describe(ordinal) for ordinal in range(api.number("cuDeviceGetCount")))
    except CallError as exc:
        raise DeviceError(f"no GPU can be used: {exc}. See nvidia-smi") from exc
    if not gpus:
        raise DeviceError("no GPU can be used: the CUDA driver sees none. See nvidia-smi and CUDA_VISIBLE_DEVICES")
    return Driver((version // 1000, version % 1000 // 10), gpus)
