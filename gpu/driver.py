"""What the CUDA driver says of itself and of its GPUs: asked without PyCUDA and without touching a GPU's memory."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from ..errors import DeviceError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, in the driver's order.

    Attributes:
        name: as the driver reports it.
        compute_capability: (major, minor).
        total_bytes: of memory.
    """

    name: str
    compute_capability: tuple[int, int]
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver that works.

    Attributes:
        cuda: (major, minor) of the newest CUDA that it runs.
        gpus: at least one.
    """

    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


def find_driver() -> Driver:
    """The CUDA driver of this machine and its GPUs.

    Libraries that need a driver crash or answer nonsense without one (TensorRT-RTX gives a pointer that leads nowhere),
    so this is asked before they are.

    Raises:
        DeviceError: there is no driver, it does not start, or it sees no GPU.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as exc:
        raise DeviceError(
            f"no GPU can be used: there is no NVIDIA driver ({exc}). Install one, or use a backend of the CPU"
        ) from exc
    _call(library, "cuInit", ctypes.c_uint(0))
    version = _number(library, "cuDriverGetVersion")
    count = _number(library, "cuDeviceGetCount")
    if count == 0:
        raise DeviceError("no GPU can be used: the CUDA driver sees none. See nvidia-smi and CUDA_VISIBLE_DEVICES")
    return Driver((version // 1000, version % 1000 // 10), tuple(_describe(library, index) for index in range(count)))


def _describe(library: ctypes.CDLL, ordinal: int) -> Gpu:
    handle = ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    major, minor, nbytes = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    _call(library, "cuDeviceGet", ctypes.byref(handle), ctypes.c_int(ordinal))
    _call(library, "cuDeviceGetName", name, ctypes.c_int(_NAME_BYTES), handle)
    _call(library, "cuDeviceComputeCapability", ctypes.byref(major), ctypes.byref(minor), handle)
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(nbytes), handle)
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), nbytes.value)


def _number(library: ctypes.CDLL, name: str) -> int:
    number = ctypes.c_int()
    _call(library, name, ctypes.byref(number))
    return number.value


def _call(library: ctypes.CDLL, name: str, *args: object) -> None:
    status = getattr(library, name)(*args)
    if status != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode()
        raise DeviceError(f"no GPU can be used: {name} failed with status {status}: {reason}. See nvidia-smi")
