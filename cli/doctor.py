"""`atrous doctor`: what is installed here, what works, and what to install."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from rich.table import Column, Table
from rich.text import Text

from .._version import __version__
from ..arguments import check_arguments
from ..errors import AtrousError, DeviceError, MissingDependencyError
from .console import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from ..runtime.backends.tensorrt_library import Flavor

#: What an optional package is for: distribution → (purpose, extra). Backends name theirs themselves.
_OPTIONAL: Final = {
    "torch": ("export from PyTorch", "export"),
    "onnx": ("export and pack", "export"),
    "onnx-ir": ("graph passes", "export"),
    "onnxscript": ("export from PyTorch", "export"),
    "safetensors": ("checkpoints", "export"),
    "av": ("video", "video"),
    "starlette": ("serving over HTTP", "serve"),
    "uvicorn": ("serving over HTTP", "serve"),
    "huggingface-hub": ("weights from Hugging Face", "hub"),
    "pycuda": ("GPU memory and kernels", "gpu"),
    "cuda-bindings": ("GPU memory and kernels, without a compiler", "gpu-wheels"),
}


@check_arguments
def doctor(*, as_json: JsonFlag = False) -> None:
    """Print what is installed, which backends work, and what to install for the rest.

    Example: atrous doctor
    """
    report = examine()
    if as_json:
        print_json(report)
        return
    system = _listing("system", report["system"])
    gpu = _listing("GPU", report["gpu"])
    backends = Table("backend", "", "detail", title="backends", title_justify="left")
    for entry in report["backends"]:
        backends.add_row(
            entry["name"],
            Text("ready", style="green") if entry["available"] else Text("no", style="red"),
            entry["detail"],
        )
    packages = Table("package", Column("version", no_wrap=True), "for", title="optional packages", title_justify="left")
    for name, entry in report["packages"].items():
        missing = Text(f"pip install 'atrous[{entry['extra']}]'", style="yellow")
        packages.add_row(name, entry["version"] or missing, entry["purpose"])
    for table in (system, gpu, backends, packages):
        print_table(table)


def _listing(title: str, values: Mapping[str, Any]) -> Table:
    table = Table(show_header=False, box=None, title=title, title_justify="left")
    for key, value in values.items():
        table.add_row(key, ", ".join(value) if isinstance(value, list) else str(value))
    return table


def examine() -> dict[str, Any]:
    """The report as plain values."""
    from .._native import isa
    from ..runtime.backends import BACKENDS, backend_status

    statuses = backend_status()
    available = {status.name for status in statuses if status.available}
    graphs = next(
        spec.name
        for spec in BACKENDS.values()
        if spec.reads == "onnx" and spec.name in available and spec.is_expected()
    )
    packages = dict.fromkeys(package for spec in BACKENDS.values() for package in spec.packages if package.extra)
    optional = _OPTIONAL | {package.distribution: (package.purpose, package.extra) for package in packages}
    return {
        "system": {
            "atrous": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "native code": isa(),
            "backend auto": f"an engine of the bundle that fits, or {graphs}",
        },
        "gpu": _examine_gpu(),
        "backends": [dataclasses.asdict(status) for status in statuses],
        "packages": {
            name: {"version": _version(name), "purpose": purpose, "extra": extra}
            for name, (purpose, extra) in optional.items()
        },
    }


def _examine_gpu() -> dict[str, Any]:
    """The parts that computing on a GPU takes; each text names what is there, or what is missing."""
    from ..gpu import find_driver
    from ..gpu.compile import find_nvcc, nvcc_version
    from ..gpu.kernel_binaries import find_fatbin
    from ..runtime.backends.on_gpu import KERNELS, kernels_origin
    from ..runtime.backends.onnxruntime import import_onnxruntime
    from ..runtime.backends.onnxruntime_gpu import overwritten
    from ..runtime.backends.tensorrt_library import FLAVORS

    report: dict[str, Any] = {}
    try:
        driver = find_driver()
    except DeviceError as exc:
        report |= {"driver": str(exc), "gpus": []}
        origin = _answer_of(lambda: "; ".join(dict.fromkeys(str(find_fatbin(source)) for source in KERNELS)))
    else:
        report["driver"] = f"for CUDA {driver.cuda[0]}.{driver.cuda[1]} and older"
        report["gpus"] = [
            f"{gpu.name}, compute capability {gpu.compute_capability[0]}.{gpu.compute_capability[1]}, "
            f"{gpu.total_bytes / 2**30:.1f} GiB"
            for gpu in driver.gpus
        ]
        origin = _answer_of(lambda: kernels_origin(driver.gpus[0].compute_capability, driver.cuda))
    report["kernels"] = origin
    has_driver = bool(report["gpus"])
    report["python library"] = _answer_of(_device_library) if has_driver else _installed_library()
    report["nvcc"] = (
        _answer_of(lambda: nvcc_version().strip().splitlines()[-1])
        if find_nvcc()
        else "not installed; only kernels that were not compiled with the package need it"
    )
    for flavor in FLAVORS:
        report[flavor] = _answer_of(functools.partial(_version_of, flavor))
    report["onnxruntime"] = overwritten() or import_onnxruntime().__version__
    report["onnxruntime providers"] = import_onnxruntime().get_available_providers()
    return report


def _device_library() -> str:
    """The library that makes the calls to a GPU; raises as `usable_device` does."""
    from ..gpu import PyCudaDevice, usable_device

    name = "pycuda" if usable_device() is PyCudaDevice else "cuda-bindings"
    return f"{name} {_version(name)}"


def _installed_library() -> str:
    """The library that would make the calls; whether it loads is known only where a driver is."""
    for name in ("pycuda", "cuda-bindings"):
        if (version := _version(name)) is not None:
            return f"{name} {version}"
    return str(MissingDependencyError("pycuda or cuda-bindings", extra="gpu", purpose="running on a GPU"))


def _version_of(flavor: Flavor) -> str:
    from ..runtime.backends.tensorrt_library import load_tensorrt

    return load_tensorrt(flavor).version


def _answer_of(ask: Callable[[], str]) -> str:
    """The answer, or why there is none."""
    try:
        return ask()
    except AtrousError as exc:
        return str(exc)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
