"""Engines behind one protocol; each imports its library when it is opened, not before."""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable, Mapping
from typing import Final

from ...bundle import Bundle
from ...errors import DeviceError, EngineError, MissingDependencyError
from ...gpu import find_driver
from .base import Backend, DeviceBackend, DeviceEngine, EngineLayout
from .on_gpu import kernels_origin
from .onnxruntime import OnnxRuntimeBackend, import_onnxruntime
from .onnxruntime_gpu import OnnxRuntimeCuda, OnnxRuntimeTensorRt, OnnxRuntimeTensorRtRtx, overwritten
from .openvino import OpenVinoBackend
from .status import BackendStatus, backend_status
from .tensorrt import TensorRtBackend

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendStatus",
    "DeviceBackend",
    "DeviceEngine",
    "EngineLayout",
    "backend_status",
    "cpu_backend",
    "open_backend",
]

_log = logging.getLogger(__name__)

#: Name → constructor, which takes (bundle, *, precision, threads).
BACKENDS: Final[Mapping[str, Callable[..., Backend]]] = {
    backend.name: backend
    for backend in (
        TensorRtBackend,
        OnnxRuntimeCuda,
        OnnxRuntimeTensorRt,
        OnnxRuntimeTensorRtRtx,
        OpenVinoBackend,
        OnnxRuntimeBackend,
    )
}


def open_backend(bundle: Bundle, *, backend: str = "auto", precision: str = "auto", threads: int = 0) -> Backend:
    """Open one of the bundle's artifacts in a backend.

    `auto` takes the first that works of: an engine of the bundle that fits here, ONNX Runtime on CUDA, OpenVINO, ONNX
    Runtime on the CPU. A GPU's that should work and does not is passed over, and a warning in the log says why, once.

    Args:
        backend: a name in `BACKENDS`, which then has to work, or `auto`.
        precision: `fp32`, `fp16`, `int8`, or `auto`.
        threads: CPU threads of one inference; 0 for all cores.

    Raises:
        EngineError: unknown backend, or it refuses the artifact, or `threads` is negative.
        MissingDependencyError: the backend's library is not installed.
        DeviceError: a GPU was asked for and cannot be used.
        BundleError: the artifact is not the file that was exported or built; nothing takes its place.
    """
    if threads < 0:
        raise EngineError(f"threads must be 0 (all cores) or more; got {threads}")
    if backend != "auto":
        if backend not in BACKENDS:
            raise EngineError(f"unknown backend {backend!r}; expected auto, {', '.join(BACKENDS)}")
        return BACKENDS[backend](bundle, precision=precision, threads=threads)
    for name in _gpu_backends(bundle):
        try:
            opened = BACKENDS[name](bundle, precision=precision, threads=threads)
            _check_kernels(opened)
        except (EngineError, DeviceError, MissingDependencyError) as exc:
            _say_once(f"{bundle.path} does not run in the {name} backend, but in the next that works: {exc}")
        else:
            return opened
    return BACKENDS[cpu_backend()](bundle, precision=precision, threads=threads)


def _check_kernels(backend: Backend) -> None:
    """Now, and not with the first picture, when another backend can still be opened."""
    if isinstance(backend, DeviceBackend):
        properties = backend.make_device().properties
        kernels_origin(properties.compute_capability, properties.cuda)


def cpu_backend() -> str:
    """The fastest installed backend of the CPU."""
    return OpenVinoBackend.name if importlib.util.find_spec("openvino") else OnnxRuntimeBackend.name


def _gpu_backends(bundle: Bundle) -> list[str]:
    """Those that there is a reason to expect to work: the bundle has an engine, ONNX Runtime has its CUDA provider."""
    found = []
    if bundle.find(kind="engine") is not None:
        found.append(TensorRtBackend.name)
    if OnnxRuntimeCuda.provider.name in import_onnxruntime().get_available_providers():
        found.append(OnnxRuntimeCuda.name)
    elif (problem := overwritten()) is not None and _has_gpu():
        _say_once(f"a GPU is here and ONNX Runtime does not use it: {problem}")
    return found


def _has_gpu() -> bool:
    try:
        find_driver()
    except DeviceError:
        return False
    return True


@functools.cache
def _say_once(message: str) -> None:
    _log.warning("%s", message)
