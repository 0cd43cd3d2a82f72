"""Where a GPU's kernels come from: compiled into the package when it was built, or by nvcc when they are first used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from ..errors import DeviceError
from .compile import compile_cubin, nvcc_version
from .device import KernelSource
from .toolchain import ARCHITECTURES, FLAGS, digest_of, find_nvcc

Loaded = TypeVar("Loaded")
Version: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fatbin:
    """Kernels that were compiled when the package was built.

    Attributes:
        path: the file, which the driver takes.
        cuda: (major, minor) of the CUDA whose nvcc made it.
        machine_code: compute capabilities that it has machine code for.
        ptx: those that it has PTX for, which the driver compiles for them and all later ones.
    """

    path: Path
    cuda: Version
    machine_code: tuple[Version, ...]
    ptx: tuple[Version, ...]

    def __str__(self) -> str:
        portable = f", PTX for others from {_joined(self.ptx[:1])}" if self.ptx else ""
        return (
            f"compiled with the package by CUDA {_joined([self.cuda])}: "
            f"compute capabilities {_joined(self.machine_code)}{portable}"
        )

    def check(self, compute_capability: Version, cuda: Version) -> None:
        """Looks whether a GPU runs it, with a driver for `cuda` and older.

        Raises:
            DeviceError: it does not; the message says why.
        """
        if cuda[0] < self.cuda[0]:
            raise DeviceError(
                f"{self.path.name} needs a driver for CUDA {self.cuda[0]}, and the driver here is for CUDA "
                f"{_joined([cuda])}: install a newer one"
            )
        runs_code = any(
            major == compute_capability[0] and minor <= compute_capability[1] for major, minor in self.machine_code
        )
        if not runs_code and not any(each <= compute_capability for each in self.ptx):
            raise DeviceError(
                f"{self.path.name} is for compute capabilities {_joined(self.machine_code)}, and the GPU has "
                f"{_joined([compute_capability])}"
            )


def find_fatbin(source: KernelSource) -> Fatbin:
    """The one that lies beside the source.

    Raises:
        DeviceError: there is none, or it was made from other files or with other flags.
    """
    path = source.path.with_suffix(".fatbin")
    if not path.exists():
        raise DeviceError(
            f"{source.path.name} was not compiled with the package, which was built without nvcc or is editable"
        )
    contents = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if contents["digest"] != digest_of(source.path, *FLAGS, *source.flags, includes=source.includes):
        raise DeviceError(f"{path.name} was compiled from another {source.path.name} than this package has")
    versions = {name: tuple(map(tuple, contents[name])) for name in ("machine_code", "ptx")}
    return Fatbin(path, tuple(contents["cuda"]), **versions)


def check_kernels(source: KernelSource, compute_capability: Version, cuda: Version) -> str:
    """Where the kernels for a GPU come from, in words; neither loads nor compiles them.

    Args:
        source: the kernels.
        compute_capability: of the GPU.
        cuda: the newest that its driver runs.

    Raises:
        DeviceError: there is no way to have them.
    """
    fatbin = _choose(source, compute_capability, cuda)
    if fatbin is not None:
        return str(fatbin)
    return f"compiled when first used, by nvcc: {nvcc_version().strip().splitlines()[-1]}"


def load_kernels(
    source: KernelSource, compute_capability: Version, cuda: Version, load: Callable[[Path], Loaded]
) -> Loaded:
    """Loads what was compiled with the package or, where that does not fit or is refused, what nvcc makes.

    Args:
        source: the kernels.
        compute_capability: of the GPU.
        cuda: the newest that its driver runs.
        load: gives a file to the driver; raises DeviceError where the driver refuses.

    Raises:
        DeviceError: there is no way to have them, or nvcc fails, or the driver refuses what it made.
    """
    fatbin = _choose(source, compute_capability, cuda)
    if fatbin is not None:
        try:
            return load(fatbin.path)
        except DeviceError as exc:
            if find_nvcc() is None:
                refused = f"{exc} (it was {fatbin}; the driver is for CUDA {_joined([cuda])}, a newer one may take it)"
                raise DeviceError(_without_nvcc(refused)) from exc
    return load(compile_cubin(source, compute_capability))


def _choose(source: KernelSource, compute_capability: Version, cuda: Version) -> Fatbin | None:
    """The package's, if it fits; None to compile."""
    if compute_capability < ARCHITECTURES[0]:
        raise DeviceError(
            f"the GPU has compute capability {_joined([compute_capability])}; the kernels need "
            f"{_joined(ARCHITECTURES[:1])} or newer. Compute on the CPU"
        )
    try:
        fatbin = find_fatbin(source)
        fatbin.check(compute_capability, cuda)
    except DeviceError as exc:
        if find_nvcc() is None:
            raise DeviceError(_without_nvcc(str(exc))) from exc
        return None
    return fatbin


def _without_nvcc(problem: str) -> str:
    return (
        f"{problem}; and compiling kernels needs nvcc, which is neither in CUDA_HOME/bin nor on the path. Install the "
        "CUDA toolkit (any release from 11.8 on that knows the GPU), or a wheel of atrous that was built where nvcc "
        "is, or compute on the CPU"
    )


def _joined(versions: tuple[Version, ...] | list[Version]) -> str:
    return ", ".join(f"{major}.{minor}" for major, minor in versions)
