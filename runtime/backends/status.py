"""Availability of each backend on this machine, without a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import AtrousError, DeviceError, MissingDependencyError
from ...gpu import find_driver, usable_device
from .on_gpu import kernels_origin
from .registry import BACKENDS
from .spec import BackendSpec


@dataclass(frozen=True)
class BackendStatus:
    """Availability of a backend here, and what to do if it has none.

    Whether it takes a bundle is known only when it opens one: an engine may have been built for another GPU.
    """

    name: str
    available: bool
    detail: str


def backend_status() -> tuple[BackendStatus, ...]:
    """Availability of each backend here, without loading a model."""
    gpu_problem = _gpu_problem()
    return tuple(_status(spec, gpu_problem if spec.device == "gpu" else None) for spec in BACKENDS.values())


def _status(spec: BackendSpec, problem: str | None) -> BackendStatus:
    if not spec.is_installed:
        commands = " or ".join(package.command for package in spec.packages)
        return BackendStatus(spec.name, available=False, detail=f"not installed: {commands}")
    try:
        library = spec.describe()
    except AtrousError as exc:
        return BackendStatus(spec.name, available=False, detail=str(exc))
    return BackendStatus(spec.name, problem is None, library if problem is None else f"{library}; {problem}")


def _gpu_problem() -> str | None:
    """Why no GPU can be used, or None."""
    try:
        driver = find_driver()
        kernels_origin(driver.gpus[0].compute_capability, driver.cuda)
        usable_device()
    except (DeviceError, MissingDependencyError) as exc:
        return str(exc)
    return None
