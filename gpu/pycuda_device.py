"""GPU device based on PyCUDA."""

from __future__ import annotations

import atexit
import threading
import warnings
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


class PyCudaDevice(CudaDevice):
    """One NVIDIA GPU through PyCUDA, used by the thread that creates this object.

    PyCUDA ties contexts to threads: an object that is destroyed in another thread is freed only with the process.

    Args:
        ordinal: index of the GPU in the driver's order.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        DeviceError: there is no driver or no such GPU, or PyCUDA fails to load.
    """

    def _open(self, ordinal: int) -> tuple[type[Exception], ...]:
        self._cuda = import_pycuda()
        try:
            self._cuda.init()
            self._context = _primary_context(self._cuda.Device(ordinal), ordinal)
        except self._cuda.Error as exc:
            raise DeviceError(f"no GPU can be used: the CUDA driver reports {exc}. See nvidia-smi") from exc
        return (self._cuda.Error,)

    def may_free(self) -> bool:
        """True in the device's thread until the process ends.

        Otherwise the context cannot be made current; the driver frees everything with the process.
        """
        return threading.get_ident() == self.thread and not process_is_ending.is_set()

    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """Allocate page-locked host memory, [nbytes] uint8."""
        with self.active(f"page-locking {nbytes / 2**20:.1f} MiB of memory"):
            memory: NDArray[np.uint8] = self._cuda.pagelocked_empty(nbytes, np.uint8)
            return memory

    def _push(self) -> None:
        self._context.push()

    def _pop(self) -> None:
        self._context.pop()

    def _load_image(self, image: bytes) -> Module:
        return _PyCudaModule(self, self._cuda.module_from_buffer(image))

    def _new_memory(self, nbytes: int) -> Any:  # noqa: ANN401 - PyCUDA has no types
        return self._cuda.mem_alloc(nbytes)

    def _new_stream(self) -> tuple[Any, int]:
        stream = self._cuda.Stream(STREAM_NON_BLOCKING)
        return stream, int(stream.handle)

    def _fill(self, buffer: Buffer, word: int, stream: CudaStream) -> None:
        self._cuda.memset_d32_async(buffer.address, word, buffer.nbytes // 4, stream.native)

    def _copy_in(self, buffer: Buffer, array: NDArray[Any], stream: CudaStream) -> None:
        self._cuda.memcpy_htod_async(buffer.address, array, stream.native)

    def _copy_out(self, array: NDArray[Any], buffer: Buffer, stream: CudaStream) -> None:
        self._cuda.memcpy_dtoh_async(array, buffer.address, stream.native)

    def _copy(self, buffer: Buffer, address: int, nbytes: int, stream: CudaStream) -> None:
        self._cuda.memcpy_dtod_async(buffer.address, address, nbytes, stream.native)


_thread_contexts = threading.local()
_all_contexts: list[Any] = []  # keeps them alive, so that PyCUDA's destructor never runs


def _primary_context(gpu: Any, ordinal: int) -> Any:  # noqa: ANN401
    """This thread's handle of a GPU's primary context, kept until the process ends.

    PyCUDA's destructor detaches a primary context as if PyCUDA had created it, which fails and can abort the process.
    An explicit detach() releases it correctly, but only after all of its objects are gone, that is, at exit. For a
    thread that has ended, detach() does nothing.
    """
    contexts: dict[int, Any] = _thread_contexts.__dict__.setdefault("by_ordinal", {})
    if ordinal not in contexts:
        contexts[ordinal] = gpu.retain_primary_context()
        _all_contexts.append(contexts[ordinal])
        atexit.register(_leave, contexts[ordinal])
    return contexts[ordinal]


def _leave(context: Any) -> None:  # noqa: ANN401
    process_is_ending.set()
    context.detach()


def import_pycuda() -> Any:  # noqa: ANN401 - PyCUDA has no types
    """Import `pycuda.driver`.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        DeviceError: PyCUDA is installed but fails to load: it was compiled for another driver, NumPy or compiler.
    """
    with importing("gpu", purpose="running on a GPU"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyCUDA warns before it raises
        try:
            import pycuda.driver
        except ModuleNotFoundError:
            raise
        except (ImportError, OSError, RuntimeError) as exc:
            raise DeviceError(
                f"PyCUDA is installed but fails to load ({exc}). Build it again for this machine's CUDA and driver "
                "(pip install --force-reinstall --no-deps --no-cache-dir pycuda), or use wheels "
                "instead: pip uninstall pycuda && pip install 'atrous[gpu-wheels]'"
            ) from exc
    return pycuda.driver


class _PyCudaModule:
    def __init__(self, device: PyCudaDevice, native: Any) -> None:  # noqa: ANN401
        self._device = device
        self._native = native
        self._functions: dict[str, Any] = {}

    def launch(self, launch: Launch, stream: Stream) -> None:
        with self._device.active(f"launching {launch.kernel}"):
            function = self._functions.get(launch.kernel)
            if function is None:
                function = self._native.get_function(launch.kernel)
                function.prepare(packing_of(launch))
                self._functions[launch.kernel] = function
            values = [packed_number(argument) for argument in launch.args]
            block = (*launch.block, 1)
            function.prepared_async_call((launch.grid, 1), block, own_stream(stream).native, *values)
