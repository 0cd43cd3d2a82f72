"""`atrous doctor`: what is installed here, what works, and what to install."""

from __future__ import annotations

import ctypes.util
import dataclasses
import importlib.metadata
import os
import platform
from typing import Any, Final

from rich.table import Column, Table
from rich.text import Text

from .. import __version__
from .console import JsonFlag, print_json, results

#: What an optional package is for: distribution → (purpose, extra).
_OPTIONAL: Final = {
    "torch": ("export from PyTorch", "export"),
    "onnx": ("export and pack", "export"),
    "onnx-ir": ("graph passes", "export"),
    "onnxscript": ("export from PyTorch", "export"),
    "safetensors": ("checkpoints", "export"),
    "openvino": ("the fastest CPU backend", "cpu"),
    "av": ("video", "video"),
    "onnxruntime-gpu": ("ONNX Runtime on CUDA", "gpu"),
    "pycuda": ("GPU memory and kernels", "gpu"),
    "tensorrt": ("TensorRT engines", "gpu"),
    "tensorrt-rtx-cu13": ("TensorRT-RTX engines", "tensorrt-rtx"),
}


def doctor(*, as_json: JsonFlag = False) -> None:
    """Print what is installed, which backends work, and what to install for the rest.

    Example: atrous doctor
    """
    report = examine()
    if as_json:
        print_json(report)
        return
    system = Table(show_header=False, box=None, title="system", title_justify="left")
    for key, value in report["system"].items():
        system.add_row(key, str(value))
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
    for table in (system, backends, packages):
        results.print(table)


def examine() -> dict[str, Any]:
    """The report as plain values."""
    from .. import _native
    from ..runtime.backends import backend_status, choose_backend

    return {
        "system": {
            "atrous": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "native code": _native.isa(),
            "nvidia driver": "found" if ctypes.util.find_library("cuda") else "not found: GPU backends cannot run",
            "backend auto": choose_backend(),
        },
        "backends": [dataclasses.asdict(status) for status in backend_status()],
        "packages": {
            name: {"version": _version(name), "purpose": purpose, "extra": extra}
            for name, (purpose, extra) in _OPTIONAL.items()
        },
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
