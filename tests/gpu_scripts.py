"""Scripts of `make gpu-check` and `make gpu-bench` as modules, for their tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "gpu_check"


def script(monkeypatch: pytest.MonkeyPatch, name: str, **constants: object) -> ModuleType:
    """A script with other constants; it finds the others of its folder, read anew as well: they look at os.environ."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    for other in FOLDER.glob("*.py"):
        monkeypatch.delitem(sys.modules, other.stem, raising=False)
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    for constant, value in constants.items():
        monkeypatch.setattr(module, constant, value)
    return module
