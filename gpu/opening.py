"""Opens a GPU through PyCUDA if it is installed, otherwise through cuda-bindings."""

from __future__ import annotations

import functools
import importlib.util
import logging

from ..errors import DeviceError, MissingDependencyError
from .cuda_bindings_device import CudaBindingsDevice, import_cuda_bindings
from .cuda_device import CudaDevice
from .driver import find_driver
from .pycuda_device import PyCudaDevice, import_pycuda

_log = logging.getLogger(__name__)


def open_device(ordinal: int = 0) -> CudaDevice:
    """Open a GPU for the calling thread, through the library that `usable_device` chooses.

    Args:
        ordinal: index of the GPU in the driver's order.

    Raises:
        DeviceError: there is no driver or no such GPU, or the installed library fails.
        MissingDependencyError: neither library is installed.
    """
    find_driver()  # first, because without a GPU installing a library does not help
    return usable_device()(ordinal)


def usable_device() -> type[CudaDevice]:
    """Choose the device class of `open_device`: PyCUDA's if installed, otherwise that of cuda-bindings.

    Both behave the same. Call this only if there is a driver, without which PyCUDA does not load. If PyCUDA fails to
    load and cuda-bindings is installed, PyCUDA is skipped; a warning is logged once.

    Raises:
        MissingDependencyError: neither library is installed.
        DeviceError: the installed library fails to load.
    """
    has_bindings = _has_cuda_bindings()
    if importlib.util.find_spec("pycuda") is not None:
        try:
            import_pycuda()
        except (DeviceError, MissingDependencyError) as exc:
            if not has_bindings:
                raise
            _warn_once(f"using cuda-bindings instead of PyCUDA: {exc}")
        else:
            return PyCudaDevice
    if not has_bindings:
        raise MissingDependencyError("pycuda or cuda-bindings", extra="gpu", purpose="running on a GPU")
    import_cuda_bindings()
    return CudaBindingsDevice


def _has_cuda_bindings() -> bool:
    # One level at a time: find_spec fails if a parent is missing, and other packages share the name `cuda`.
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)
