"""Binaries of GPU kernels: compiled when the package was built, or by nvcc on first use."""

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
    """Binary of kernels that was compiled when the package was built.

    Attributes:
        path: the file.
        cuda: (major, minor) of the CUDA version of nvcc.
        machine_code: compute capabilities with machine code.
        ptx: compute capabilities with PTX, which the driver compiles for these and later ones.
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
        """Check that a GPU can run the binary with a driver for `cuda`.

        Raises:
            DeviceError: it cannot; the message says why.
        """
        if cuda[0] < self.cuda[0]:
            raise DeviceError(
                f"{self.path.name} needs a driver for CUDA {self.cuda[0]}, but this driver is for CUDA "
                f"{_joined([cuda])}. Install a newer driver"
            )
        runs_code = any(
            major == compute_capability[0] and minor <= compute_capability[1] for major, minor in self.machine_code
        )
        if not runs_code and not any(each <= compute_capability for each in self.ptx):
            raise DeviceError(
                f"{self.path.name} is for compute capabilities {_joined(self.machine_code)}, but the GPU has "
                f"{_joined([compute_capability])}"
            )


def find_fatbin(source: KernelSource) -> Fatbin:
    """Find the binary beside the source.

    Raises:
        DeviceError: there is none, or it was compiled from other files or with other flags.
    """
    path = source.path.with_suffix(".fatbin")
    if not path.exists():
        raise DeviceError(
            f"{source.path.name} was not compiled with the package, which was built without nvcc or is editable"
        )
    contents = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if contents["digest"] != digest_of(source.path, *FLAGS, *source.flags, includes=source.includes):
        raise DeviceError(f"{path.name} was compiled from another version of {source.path.name}")
    versions = {name: tuple(map(tuple, contents[name])) for name in ("machine_code", "ptx")}
    return Fatbin(path, tuple(contents["cuda"]), **versions)


def check_kernels(source: KernelSource, compute_capability: Version, cuda: Version) -> str:
    """Describe the origin of the kernels for a GPU, without loading or compiling them.

    Args:
        source: the kernels.
        compute_capability: (major, minor) of the GPU.
        cuda: newest CUDA version of its driver.

    Raises:
        DeviceError: there is no binary for the GPU, and nvcc is missing.
    """
    fatbin = _choose(source, compute_capability, cuda)
    if fatbin is not None:
        return str(fatbin)
    return f"compiled when first used, by nvcc: {nvcc_version().strip().splitlines()[-1]}"


def load_kernels(
    source: KernelSource, compute_capability: Version, cuda: Version, load: Callable[[Path], Loaded]
) -> Loaded:
    """Load the package's binary or, if it does not match the GPU or the driver rejects it, compile with nvcc.

    Args:
        source: the kernels.
        compute_capability: (major, minor) of the GPU.
        cuda: newest CUDA version of its driver.
        load: loads a file into the driver; raises DeviceError if the driver rejects it.

    Raises:
        DeviceError: there is no binary for the GPU and nvcc is missing, nvcc fails, or the driver rejects the result.
    """
    fatbin = _choose(source, compute_capability, cuda)
    if fatbin is not None:
        try:
            return load(fatbin.path)
        except DeviceError as exc:
            if find_nvcc() is None:
                refused = (
                    f"{exc} (it was {fatbin}; the driver is for CUDA {_joined([cuda])}, a newer driver may accept it)"
                )
                raise DeviceError(_without_nvcc(refused)) from exc
    return load(compile_cubin(source, compute_capability))


def _choose(source: KernelSource, compute_capability: Version, cuda: Version) -> Fatbin | None:
    """The package's binary if it matches the GPU and driver; None to compile."""
    if compute_capability < ARCHITECTURES[0]:
        raise DeviceError(
            f"the GPU has compute capability {_joined([compute_capability])}; the kernels need "
            f"{_joined(ARCHITECTURES[:1])} or newer. Run on the CPU"
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
        f"{problem}; and compiling kernels needs nvcc, which is neither in CUDA_HOME/bin nor on the path. "
        "Install the CUDA toolkit (11.8 or later, with support for the GPU) or a wheel of atrous that was built with "
        "nvcc, or run on the CPU"
    )


def _joined(versions: tuple[Version, ...] | list[Version]) -> str:
    return ", ".join(f"{major}.{minor}" for major, minor in versions)
