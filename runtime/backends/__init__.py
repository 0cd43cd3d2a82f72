"""Engines behind one protocol; each imports its library when it is opened, not before."""

from __future__ import annotations

from .base import Backend, DeviceBackend, DeviceEngine, EngineLayout
from .registry import BACKENDS
from .select import choose_artifact, cpu_backend, find_spec, open_backend, open_reference
from .spec import BackendSpec
from .status import BackendStatus, backend_status

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendSpec",
    "BackendStatus",
    "DeviceBackend",
    "DeviceEngine",
    "EngineLayout",
    "backend_status",
    "choose_artifact",
    "cpu_backend",
    "find_spec",
    "open_backend",
    "open_reference",
]
