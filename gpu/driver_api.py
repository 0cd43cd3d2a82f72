"""The CUDA driver's functions, called by name."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from ..errors import DeviceError

_CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating."""


class DriverApi:
    """Functions of the driver that PyCUDA does not wrap (CUDA driver API, 11.4 on): graphs, and events inside them."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def call(self, name: str, *args: object) -> None:
        """Calls one function.

        Raises:
            DeviceError: it returns another status than success.
        """
        status = getattr(self._library, name)(*args)
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise DeviceError(f"{name} failed with status {status}: {reason}")

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
