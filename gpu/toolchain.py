"""Compilation of kernels: flags and file lists that the package and its build share.

setup.py loads this file by its path, before there is a package: it imports nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ARCHITECTURES = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0))
"""Compute capabilities that get machine code, which later minor versions run as well. The first is the oldest GPU."""

PORTABLE = ((9, 0), (12, 0))
"""Those that get PTX besides, which the driver compiles: one for 10.x and 11.x, one for all that come."""

SHARED = Path(__file__).resolve().parents[1] / "native" / "kernels"
"""Headers that all kernels of the package may include."""

FLAGS = ("-std=c++17", "-O3")
"""Of everything that is compiled."""

EXACT = ("-fmad=false",)
"""Of the package's kernels: products and sums round one by one, as on the CPU."""


def find_nvcc() -> Path | None:
    """The compiler: the one of CUDA_HOME if that is set, else the first on the path, else none."""
    home = os.environ.get("CUDA_HOME")
    found = shutil.which("nvcc", path=str(Path(home) / "bin")) if home else shutil.which("nvcc")
    return Path(found) if found else None


def files_of(source: Path, includes: Sequence[Path] = ()) -> list[Path]:
    """A .cu file and everything that it may include, beside it and in other folders, in a fixed order."""
    return [source, *(path for folder in (source.parent, *includes) for path in sorted(folder.glob("*.cuh")))]


def include_flags(includes: Sequence[Path]) -> list[str]:
    """Compiler flags for these include folders, whose headers are included by their path from the package's root."""
    return [f"-I{root}" for root in dict.fromkeys(folder.parents[1] for folder in includes)]


def digest_of(source: Path, *words: str, includes: Sequence[Path] = ()) -> str:
    """24 hexadecimal digits that change with the source, its includes, and the words: flags, or a compiler."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in files_of(source, includes):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:24]


def build_fatbin(
    nvcc: Path, source: Path, fatbin: Path, *, flags: Sequence[str], includes: Sequence[Path] = ()
) -> None:
    """Compiles for every GPU that is supported and that nvcc knows.

    Args:
        nvcc: the compiler, of CUDA 11.8 or newer.
        source: the .cu file.
        fatbin: what to write; beside it, as .json, what it was made from and for, as `images.Fatbin` reads it.
        flags: besides `FLAGS`.
        includes: folders of headers, as in `files_of`.

    Raises:
        subprocess.CalledProcessError: nvcc fails; its log is in `stdout` and `stderr`.
    """
    known = set(re.findall(r"sm_(\d+)\b", _run(nvcc, "--list-gpu-code")))
    machine_code = [each for each in ARCHITECTURES if _digits(each) in known]
    ptx = [each for each in PORTABLE if _digits(each) in known]
    codes = [f"-gencode=arch=compute_{_digits(each)},code=sm_{_digits(each)}" for each in machine_code]
    codes += [f"-gencode=arch=compute_{_digits(each)},code=compute_{_digits(each)}" for each in ptx]
    major, minor = re.findall(r"release (\d+)\.(\d+)", _run(nvcc, "--version"))[-1]
    fatbin.parent.mkdir(parents=True, exist_ok=True)
    # From the source's folder: nvcc writes the path that it is given into the file.
    roots = include_flags([Path(os.path.relpath(folder, source.parent)) for folder in includes])
    options = (*FLAGS, *flags, *roots, *codes, "-Xfatbin", "-compress-all", "--threads", "0", "-fatbin")
    _run(nvcc, *options, source.name, "-o", str(fatbin.absolute()), folder=source.parent)
    contents = {
        "digest": digest_of(source, *FLAGS, *flags, includes=includes),
        "cuda": [int(major), int(minor)],
        "machine_code": machine_code,
        "ptx": ptx,
    }
    fatbin.with_suffix(".json").write_text(json.dumps(contents) + "\n", encoding="utf-8")


def _digits(compute_capability: tuple[int, int]) -> str:
    return "".join(map(str, compute_capability))


def _run(nvcc: Path, *args: str, folder: Path | None = None) -> str:
    command = [str(nvcc.absolute()), *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout  # noqa: S603
