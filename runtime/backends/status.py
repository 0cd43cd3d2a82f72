"""What each backend would say on this machine, without a bundle."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import AtrousError, DeviceError, MissingDependencyError
from ...gpu import find_driver, usable_device
from .on_gpu import kernels_origin
from .onnxruntime import OnnxRuntimeBackend, import_onnxruntime
from .onnxruntime_gpu import OnnxRuntimeCuda, OnnxRuntimeTensorRt, OnnxRuntimeTensorRtRtx, Provider, check_available
from .openvino import OpenVinoBackend
from .tensorrt import TensorRtBackend
from .tensorrt_library import FLAVORS, installed_flavors, load_tensorrt


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can be used here, and what to do if not.

    Whether it takes a bundle is known only when it opens one: an engine may have been built for another GPU.
    """

    name: str
    available: bool
    detail: str


def backend_status() -> tuple[BackendStatus, ...]:
    """What each backend would say here, without loading a model."""
    return tuple(_statuses())


def _statuses() -> Iterator[BackendStatus]:
    gpu_problem = _gpu_problem()
    yield _tensorrt_status(gpu_problem)
    for backend in (OnnxRuntimeCuda, OnnxRuntimeTensorRt, OnnxRuntimeTensorRtRtx):
        yield _provider_status(backend.name, backend.provider, gpu_problem)
    for name, hint in (
        (OpenVinoBackend.name, "pip install 'atrous[cpu]'"),
        (OnnxRuntimeBackend.name, "pip install onnxruntime"),
    ):
        if importlib.util.find_spec(name) is None:
            yield BackendStatus(name, available=False, detail=f"not installed: {hint}")
        else:
            yield BackendStatus(name, available=True, detail=f"{_version(name)} on the CPU")


def _tensorrt_status(gpu_problem: str | None) -> BackendStatus:
    flavors = installed_flavors()
    if not flavors:
        hints = " or ".join(f"pip install 'atrous[{facts.extra}]'" for facts in FLAVORS.values())
        return BackendStatus(TensorRtBackend.name, available=False, detail=f"not installed: {hints}")
    try:
        versions = ", ".join(f"{flavor} {load_tensorrt(flavor).version}" for flavor in flavors)
    except AtrousError as exc:
        return BackendStatus(TensorRtBackend.name, available=False, detail=str(exc))
    return BackendStatus(TensorRtBackend.name, available=gpu_problem is None, detail=_joined(versions, gpu_problem))


def _provider_status(name: str, provider: Provider, gpu_problem: str | None) -> BackendStatus:
    try:
        check_available(provider)
    except AtrousError as exc:
        return BackendStatus(name, available=False, detail=str(exc))
    version = f"{import_onnxruntime().__version__} with {provider.name}"
    return BackendStatus(name, available=gpu_problem is None, detail=_joined(version, gpu_problem))


def _joined(what: str, problem: str | None) -> str:
    return what if problem is None else f"{what}; {problem}"


def _gpu_problem() -> str | None:
    """Why no GPU can be used, or None."""
    try:
        driver = find_driver()
        kernels_origin(driver.gpus[0].compute_capability, driver.cuda)
        usable_device()
    except (DeviceError, MissingDependencyError) as exc:
        return str(exc)
    return None


def _version(distribution: str) -> str:
    for candidate in (distribution, f"{distribution}-gpu"):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown version"
