"""CUDA source → machine code for one compute capability, by nvcc, cached."""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ..errors import DeviceError
from .device import KernelSource
from .toolchain import FLAGS, digest_of, find_nvcc, include_flags

__all__ = ["cache_folder", "compile_cubin", "find_nvcc", "nvcc_version"]

_LINES = "-lineinfo"
"""Changes no instruction, and profilers show the source."""


def cache_folder() -> Path:
    """Where compiled kernels are kept for this user."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "atrous" / "kernels"


def compile_cubin(source: KernelSource, compute_capability: tuple[int, int], folder: Path | None = None) -> Path:
    """Machine code of `source`; compiled only if the source, its includes, the flags or the compiler changed.

    Args:
        source: the translation unit.
        compute_capability: (major, minor) of the GPU to run on.
        folder: where to keep it; `cache_folder()` by default.

    Returns:
        A .cubin file; the compiler's log with registers and spills of each kernel is beside it, as .log.

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
    """What nvcc says it is.

    Raises:
        DeviceError: it is missing or does not run.
    """
    return _version_of(_needed_nvcc())


def _needed_nvcc() -> Path:
    nvcc = find_nvcc()
    if nvcc is None:
        raise DeviceError(
            "compiling kernels needs nvcc, which is neither in CUDA_HOME/bin nor on the path. Install the CUDA toolkit "
            "(any release from 11.8 on that knows the GPU) or compute on the CPU"
        )
    return nvcc


@cache
def _version_of(nvcc: Path) -> str:
    """Asks once for each compiler."""
    run = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    if run.returncode != 0:
        raise DeviceError(f"{nvcc} --version failed with exit code {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout


def _run_nvcc(nvcc: Path, source: KernelSource, flags: tuple[str, ...], cubin: Path) -> None:
    """Compiles to a temporary folder and renames, so that two processes may compile the same source at once."""
    with tempfile.TemporaryDirectory(dir=cubin.parent) as scratch:
        out = Path(scratch) / cubin.name
        command = [
            str(nvcc),
            *flags,
            *include_flags(source.includes),
            "-cubin",
            "-Xptxas",
            "-v",
            str(source.path),
            "-o",
            str(out),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        log = run.stdout + run.stderr
        if run.returncode != 0:
            what = f"nvcc failed on {source.path.name} with exit code {run.returncode} ({' '.join(flags)})"
            raise DeviceError(f"{what}. Its log:\n{log}")
        out.with_suffix(".log").write_text(log, encoding="utf-8")
        out.with_suffix(".log").replace(cubin.with_suffix(".log"))
        out.replace(cubin)
