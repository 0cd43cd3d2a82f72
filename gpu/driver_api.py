"""The CUDA driver's functions, called by name."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from ..errors import DeviceError

_CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating."""

_MULTIPROCESSOR_COUNT = 16
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT."""


class CallError(DeviceError):
    """A function of the driver returned another status than success.

    Attributes:
        status: the CUresult.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class DriverApi:
    """Functions of the driver that every kind of device needs and PyCUDA does not wrap (CUDA driver API, 11.4 on)."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def call(self, name: str, *args: object) -> None:
        """Calls one function.

        Raises:
            CallError: it returns another status than success.
        """
        self.check(name, getattr(self._library, name)(*args))

    def check(self, name: str, status: int) -> None:
        """Raises CallError for the status that a function returned, unless it is success."""
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise CallError(f"{name} failed with status {status}: {reason}", status)

    def multiprocessors(self, ordinal: int) -> int:
        """How many a GPU has."""
        gpu, count = ctypes.c_int(), ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(gpu), ctypes.c_int(ordinal))
        self.call("cuDeviceGetAttribute", ctypes.byref(count), ctypes.c_int(_MULTIPROCESSOR_COUNT), gpu)
        return count.value

    def free_bytes(self) -> int:
        """Memory of the current context's GPU that is free."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def capture(self, queue: Callable[[], None], stream: int) -> ctypes.c_void_p:
        """Records `queue` and makes the graph executable."""
        handle = ctypes.c_void_p(stream)
        graph = ctypes.c_void_p()
        executable = ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        try:
            queue()
        finally:  # always, so that the stream can be used again
            self.call("cuStreamEndCapture", handle, ctypes.byref(graph))
        try:
            self.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            self.call("cuGraphDestroy", graph)
        return executable
