"""The real bindings of TensorRT without TensorRT: the wheel with the Python module, over empty core libraries."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Flavour → what to describe; of TensorRT the newest of each major version that is supported.
VERSIONS = {"tensorrt-10": "10.16.1.11", "tensorrt-11": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}
_PACKAGE = "tensorrt-cu13-bindings"


@dataclass(frozen=True)
class Api:
    """What one version of the bindings offers.

    Attributes:
        names: of the module.
        classes: class → member → name of the class that it gives, or an empty text.
    """

    version: str
    names: frozenset[str]
    classes: dict[str, dict[str, str]]

    @classmethod
    def from_json(cls, text: str) -> Api:
        data = json.loads(text)
        return cls(data["version"], frozenset(data["names"]), data["classes"])

    def to_json(self) -> str:
        """With a class a line, so that versions can be compared."""
        classes = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(members)}" for name, members in self.classes.items())
        names = json.dumps(sorted(self.names))
        return f'{{\n "version": "{self.version}",\n "names": {names},\n "classes": {{\n  {classes}\n }}\n}}\n'


def read_snapshot(name: str) -> Api:
    """What is kept here for machines without the wheels."""
    return Api.from_json((HERE / f"{name}.json").read_text())


class UnreachableError(Exception):
    """A wheel cannot be had here."""


def describe_wheel(version: str, cache: Path) -> Api:
    """Download the bindings of a version, once, and ask them.

    Raises:
        UnreachableError: pip finds no such wheel: no network, or none for this Python.
    """
    folder = cache / f"{version}-{sys.implementation.cache_tag}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=cache) as work:
            unpacked = Path(work) / "unpacked"
            with zipfile.ZipFile(_download(version, Path(work))) as archive:
                archive.extractall(unpacked)
            for library in (unpacked / "tensorrt_bindings").glob("tensorrt*.so"):
                _build_stubs(library)
            unpacked.replace(folder)
    return describe_module("tensorrt_bindings", path=folder)


def describe_module(module: str, *, path: Path | None = None) -> Api:
    """Ask an installed module, or one in the folder `path`, in a process of its own."""
    environment = dict(os.environ) if path is None else os.environ | {"PYTHONPATH": str(path)}
    command = [sys.executable, str(HERE / "describe.py"), module]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    return Api.from_json(run.stdout)


def _download(version: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), f"{_PACKAGE}=={version}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise UnreachableError(
            f"pip finds no {_PACKAGE} {version}: {(run.stderr.strip() or 'no reason').splitlines()[-1]}"
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _build_stubs(bindings: Path) -> None:
    """Libraries with the names that the bindings link to and the functions that they miss, none of which is called."""
    dynamic = _run("readelf", "--dynamic", "--wide", str(bindings))
    wanted = [name for name in re.findall(r"\(NEEDED\).*\[(.+?)\]", dynamic) if name.startswith("libnv")]
    symbols = re.findall(r"^\s+U (\w+)$", _run("nm", "--dynamic", "--undefined-only", str(bindings)), re.MULTILINE)
    process: Any = ctypes.CDLL(None)
    source = bindings.with_name("stub.c")
    missing = [name for name in symbols if not hasattr(process, name)]  # the others are of the C library
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in missing))
    for library in wanted:
        options = ["-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(bindings.with_name(library))]
        _run("gcc", *options, str(source))


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
