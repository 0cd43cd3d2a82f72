"""Compiles CUDA sources for the CPU, with the shim in this folder, into a shared library."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

from atrous.gpu import KernelSource

HERE = Path(__file__).parent
# -ffp-contract=off is what nvcc's -fmad=false is. -Wno-psabi: see setup.py.
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
_KERNEL = re.compile(r'extern "C"\s+void\s+(\w+)\s*\(')


def build(source: KernelSource, *, sanitize: bool = False) -> Path:
    """The library, from a cache that knows sources, shim and flags.

    Raises:
        RuntimeError: g++ fails; the message is its log.
    """
    shim = sorted(path for path in HERE.iterdir() if path.suffix in (".h", ".cpp"))
    flags = (*FLAGS, *(SANITIZERS if sanitize else ()))
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in (*source.files(), *shim, Path(__file__)):
        digest.update(path.name.encode() + path.read_bytes())
    library = Path(tempfile.gettempdir()) / "atrous-emulator" / f"{source.path.stem}-{digest.hexdigest()[:24]}.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            registry = Path(scratch) / "registry.cpp"
            registry.write_text(_registry(source), encoding="utf-8")
            out = registry.with_suffix(".so")
            _gcc(*flags, *_includes(), str(registry), str(HERE / "scheduler.cpp"), "-o", str(out))
            out.replace(library)  # two test processes may build the same one
    return library


def _includes() -> tuple[str, ...]:
    return ("-include", str(HERE / "cuda_shim.h"), f"-I{HERE}", "-Wno-unknown-pragmas")


def _registry(source: KernelSource) -> str:
    """The translation unit and, for each of its kernels, the functions by which Python calls it."""
    unit = f'#include "launch.h"\n#include "{source.path}"\n'
    expanded = _gcc("-std=c++17", "-E", "-P", *_includes(), str(source.path), "-x", "c++", language=True)
    names = sorted(set(_KERNEL.findall(expanded)))
    return unit + "using namespace atrous;\n" + "".join(f"EMULATED_KERNEL({name})\n" for name in names)


def _gcc(*args: str, language: bool = False) -> str:
    command = ["g++", *(("-x", "c++") if language else ()), *args]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{run.stderr}")
    return run.stdout
