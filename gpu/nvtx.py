"""NVTX ranges for Nsight Systems; no-ops if NVIDIA's library is not installed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

#: The first is from CUDA toolkits up to 12, the second from the nvidia-nvtx package of CUDA 13.
_LIBRARIES = ("libnvToolsExt.so.1", "libnvtx3interop.so.1", "nvToolsExt64_1.dll", "nvtx3interop.dll")


@contextmanager
def annotate(name: str) -> Iterator[None]:
    """Mark this block as a named range; ranges of one thread nest."""
    library = _find_library()
    if library is None:
        yield
        return
    library.nvtxRangePushA(name.encode())
    try:
        yield
    finally:
        library.nvtxRangePop()


@cache
def _find_library() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if hasattr(library, "nvtxRangePushA") and hasattr(library, "nvtxRangePop"):
            return library
    return None
