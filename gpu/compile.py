"""Compiles CUDA sources for one compute capability with nvcc, cached."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from ..errors import DeviceError
from ..files import write_whole
from .device import KernelSource
from .toolchain import FLAGS, digest_of, find_nvcc, include_flags

__all__ = ["cache_folder", "compile_cubin", "find_nvcc", "nvcc_version"]

#: Line information for profilers; does not change the instructions.
_LINES = "-lineinfo"


def cache_folder() -> Path:
    """Folder of this user's compiled kernels."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "atrous" / "kernels"


def compile_cubin(source: KernelSource, compute_capability: tuple[int, int], folder: Path | None = None) -> Path:
    """Compile `source`, unless a cubin of the same source, includes, flags and compiler is in the cache.

    Args:
        source: the translation unit.
        compute_capability: (major, minor) of the GPU.
        folder: cache folder; `cache_folder()` by default.

    Returns:
        Path of the .cubin file; the compiler's log (registers and spills of each kernel) is beside it, as .log.

    Raises:
        DeviceError: nvcc is missing or fails.
    """
    nvcc = _needed_nvcc()
    version = _version_of(nvcc)
    flags = (*FLAGS, _LINES, *source.flags, f"-arch=sm_{compute_capability[0]}{compute_capability[1]}")
    folder = folder or cache_folder()
    cubin = folder / f"{source.path.stem}-{digest_of(source.path, version, *flags, includes=source.includes)}.cubin"
    if not cubin.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run_nvcc(nvcc, source, flags, cubin)
    return cubin


def nvcc_version() -> str:
    """Version text of nvcc.

    Raises:
        DeviceError: nvcc is missing or does not run.
    """
    return _version_of(_needed_nvcc())


def _needed_nvcc() -> Path:
    nvcc = find_nvcc()
    if nvcc is None:
        raise DeviceError(
            "compiling kernels needs nvcc, which is neither in CUDA_HOME/bin nor on the path. Install the CUDA toolkit "
            "(11.8 or later, with support for the GPU), or run on the CPU"
        )
    return nvcc


@cache
def _version_of(nvcc: Path) -> str:
    """Version text of a compiler, queried once."""
    run = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    if run.returncode != 0:
        raise DeviceError(f"{nvcc} --version failed with exit code {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout


def _run_nvcc(nvcc: Path, source: KernelSource, flags: tuple[str, ...], cubin: Path) -> None:
    """Compile; the file at `cubin` is replaced whole, so that processes may compile the same source at once."""
    with write_whole(cubin) as out:
        includes = include_flags(source.includes)
        command = [str(nvcc), *flags, *includes, "-cubin", "-Xptxas", "-v", str(source.path), "-o", str(out)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        log = run.stdout + run.stderr
        if run.returncode != 0:
            what = f"nvcc failed on {source.path.name} with exit code {run.returncode} ({' '.join(flags)})"
            raise DeviceError(f"{what}. Its log:\n{log}")
        with write_whole(cubin.with_suffix(".log")) as written:
            written.write_text(log, encoding="utf-8")
