"""Which library makes the calls to a GPU: PyCUDA where it is installed, else cuda-bindings."""

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
    """A GPU, for the calling thread, through the library that `usable_device` finds.

    Args:
        ordinal: which GPU, in the driver's order.

    Raises:
        DeviceError: there is no driver, or no such GPU, or what is installed does not work.
        MissingDependencyError: neither library is installed.
    """
    find_driver()  # first: without a GPU, installing a library would not help
    return usable_device()(ordinal)


def usable_device() -> type[CudaDevice]:
    """The class of devices that `open_device` makes: PyCUDA's where it is installed, else that of cuda-bindings.

    To be asked where a driver is: without one, PyCUDA does not load.

    Both do the same. A PyCUDA that is installed and does not load is passed over if cuda-bindings are there, and a
    warning in the log says so, once.

    Raises:
        MissingDependencyError: neither library is installed.
        DeviceError: what is installed does not load.
    """
    has_bindings = _has_cuda_bindings()
    if importlib.util.find_spec("pycuda") is not None:
        try:
            import_pycuda()
        except (DeviceError, MissingDependencyError) as exc:
            if not has_bindings:
                raise
            _warn_once(f"cuda-bindings are used in place of PyCUDA: {exc}")
        else:
            return PyCudaDevice
    if not has_bindings:
        raise MissingDependencyError("pycuda or cuda-bindings", extra="gpu", purpose="running on a GPU")
    import_cuda_bindings()
    return CudaBindingsDevice


def _has_cuda_bindings() -> bool:
    # Looked for level by level: find_spec fails where a parent is missing, and other packages share the name `cuda`.
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)
