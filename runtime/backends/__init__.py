"""Engines behind one protocol; each imports its library when it is opened, not before."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ...bundle import Bundle
from ...errors import EngineError
from .base import Backend
from .onnxruntime import OnnxRuntimeBackend, cuda_is_available
from .openvino import OpenVinoBackend

__all__ = ["BACKENDS", "Backend", "BackendStatus", "backend_status", "choose_backend", "open_backend"]

#: Name → constructor, which takes (bundle, *, precision, threads).
BACKENDS: Final[Mapping[str, Callable[..., Backend]]] = {
    "openvino": OpenVinoBackend,
    "onnxruntime": OnnxRuntimeBackend,
}


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can be used here, and what to do if not."""

    name: str
    available: bool
    detail: str


def open_backend(bundle: Bundle, *, backend: str = "auto", precision: str = "auto", threads: int = 0) -> Backend:
    """Open the bundle's artifact in a backend.

    Args:
        backend: a name in `BACKENDS`, or `auto` for the fastest one that is installed.
        precision: `fp32`, `fp16`, `int8`, or `auto`.
        threads: CPU threads of one inference; 0 for all cores.

    Raises:
        EngineError: unknown backend, or it refuses the artifact, or `threads` is negative.
        MissingDependencyError: the backend's library is not installed.
    """
    if threads < 0:
        raise EngineError(f"threads must be 0 (all cores) or more; got {threads}")
    name = choose_backend() if backend == "auto" else backend
    if name not in BACKENDS:
        raise EngineError(f"unknown backend {backend!r}; expected auto, {', '.join(BACKENDS)}")
    return BACKENDS[name](bundle, precision=precision, threads=threads)


def choose_backend() -> str:
    """The fastest installed backend: CUDA through ONNX Runtime, then OpenVINO, then ONNX Runtime on the CPU."""
    if importlib.util.find_spec("onnxruntime") and cuda_is_available():
        return "onnxruntime"
    return "openvino" if importlib.util.find_spec("openvino") else "onnxruntime"


def backend_status() -> tuple[BackendStatus, ...]:
    """What each backend would say here, without loading a model."""
    statuses = []
    for name, hint in (("openvino", "pip install 'atrous[cpu]'"), ("onnxruntime", "pip install onnxruntime")):
        if importlib.util.find_spec(name) is None:
            statuses.append(BackendStatus(name, available=False, detail=f"not installed: {hint}"))
            continue
        device = "CUDA" if name == "onnxruntime" and cuda_is_available() else "CPU"
        statuses.append(BackendStatus(name, available=True, detail=f"{_version(name)} on the {device}"))
    return tuple(statuses)


def _version(distribution: str) -> str:
    for candidate in (distribution, f"{distribution}-gpu"):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown version"
