"""Named ranges of the host's time line, for Nsight Systems; nothing where NVIDIA's library is not installed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

#: CUDA's toolkits up to 12 bring the first, the nvidia-nvtx package of CUDA 13 the second.
_LIBRARIES = ("libnvToolsExt.so.1", "libnvtx3interop.so.1", "nvToolsExt64_1.dll", "nvtx3interop.dll")


@contextmanager
def annotate(name: str) -> Iterator[None]:
    """A range that lasts as long as the block; ranges of one thread nest."""
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
