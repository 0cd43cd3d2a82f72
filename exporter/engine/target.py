"""Targets of a build, chosen and validated before it starts: TensorRT flavour, GPUs, shapes and options."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ...arguments import check_fields
from ...errors import DeviceError, EngineError, MissingDependencyError
from ...gpu import find_driver
from ...manifest import EngineProfile, HardwareCompatibility, Size, SizePolicy
from ...runtime.backends.tensorrt_library import FLAVORS, Flavor, TensorRT, installed_flavors, load_tensorrt
from ...runtime.backends.tensorrt_types import RtxModule
from ...runtime.preprocess import fit_size
from ..options import AtrousForm, BackendChoice
from ..sizes import DynamicSize

_LEVELS: Final = range(6)


@dataclass(frozen=True)
class BuilderOptions:
    """Options of TensorRT's builder.

    Attributes:
        workspace_bytes: maximum scratch memory of a layer; None for all of the GPU's memory.
        optimization_level: 0 (fastest build) to 5 (fastest engine); None for TensorRT's default, 3.
        timing_cache: file with kernel timings; read if it exists, and written after the build.
        hardware_compatibility: other GPUs that can run the engine; costs speed.
        version_compatible: let later TensorRT of the same major version run the engine; costs speed and size.
        atrous: form of the atrous convolutions in the graph that TensorRT gets. TensorRT times its own kernels for the
            dilated form, which is the bundle's; another one takes that choice from it.
    """

    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: str | os.PathLike[str] | None = None
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False
    atrous: AtrousForm = "dilated"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Target:
    """GPU that one engine is built for.

    Attributes:
        compute_capability: (major, minor) of the GPU.
        driver: newest CUDA version of the local driver if the engine is for the local GPU, else None.
    """

    compute_capability: tuple[int, int]
    driver: str | None

    @property
    def sm(self) -> str:
        """Compute capability as NVIDIA's compilers write it, e.g. `89`."""
        return "".join(map(str, self.compute_capability))


def choose_targets(backend: BackendChoice, sm: Sequence[str]) -> tuple[TensorRT, tuple[Target, ...]]:
    """Choose the TensorRT to build with, and the targets: the compute capabilities `sm`, or the local GPU.

    Raises:
        EngineError: the backend or a compute capability is unknown or not supported by this TensorRT, or the driver is
            too old for it.
        DeviceError: `sm` is empty, and there is no driver or GPU.
        MissingDependencyError: TensorRT is not installed.
    """
    if backend not in ("auto", *FLAVORS):
        raise EngineError(f"unknown backend {backend!r}; expected auto, {', '.join(FLAVORS)}")
    if sm:
        if backend == "tensorrt":
            raise EngineError(
                f"tensorrt builds only for the local GPU, not for SM {', '.join(sm)}. Use tensorrt-rtx "
                "(--backend tensorrt-rtx), or build on a machine with that GPU"
            )
        trt = load_tensorrt("tensorrt-rtx")
        return trt, tuple(Target(_capability(trt, name), driver=None) for name in dict.fromkeys(sm))
    try:
        driver = find_driver()
    except DeviceError as exc:
        raise DeviceError(f"{exc}. To build for another machine, name its GPU: --sm 89 (with tensorrt-rtx)") from exc
    trt = load_tensorrt(_installed() if backend == "auto" else backend)
    target = Target(driver.gpus[0].compute_capability, ".".join(map(str, driver.cuda)))
    if trt.cuda is not None and driver.cuda[0] < int(trt.cuda):
        raise EngineError(
            f"{trt.flavor} {trt.version} needs a driver for CUDA {trt.cuda}; the driver here is for CUDA "
            f"{target.driver}: install a newer one"
        )
    if trt.flavor == "tensorrt-rtx":
        _capability(trt, target.sm)
    return trt, (target,)


def check_options(options: BuilderOptions, flavor: Flavor) -> None:
    """Validate the builder options for a TensorRT flavour.

    Raises:
        EngineError: an option is out of range, or the flavour does not support it.
    """
    if options.workspace_bytes is not None and options.workspace_bytes <= 0:
        raise EngineError(f"the workspace must be more than 0 bytes; got {options.workspace_bytes}")
    if options.optimization_level is not None and options.optimization_level not in _LEVELS:
        raise EngineError(
            f"the optimization level must be {_LEVELS[0]} … {_LEVELS[-1]}; got {options.optimization_level}"
        )
    if flavor == "tensorrt":
        return
    for option, (is_set, reason) in _unsupported_by_rtx(options).items():
        if is_set:
            raise EngineError(
                f"{option} is not supported by {flavor}: {reason}. Leave it out, or use --backend tensorrt"
            )


def _unsupported_by_rtx(options: BuilderOptions) -> Mapping[str, tuple[bool, str]]:
    """Option → (True if it is set, reason why TensorRT-RTX does not support it)."""
    return {
        "a timing cache": (
            options.timing_cache is not None,
            "it chooses kernels without timing them, and caches compiled kernels at run time",
        ),
        "an optimization level": (
            options.optimization_level is not None,
            "kernels are chosen at run time, so engines of every level are the same",
        ),
        "hardware compatibility": (
            options.hardware_compatibility != "none",
            "build one engine per GPU instead: --sm 86 --sm 89",
        ),
        "version compatibility": (options.version_compatible, "it does not include the lean runtime that this needs"),
    }


def engine_profile(policy: SizePolicy, size: Size | DynamicSize | None, batch: int, *, bands: int = 3) -> EngineProfile:
    """Shapes to build for: the bundle's sizes or a subset, and batches of 1 to `batch`, fastest at `batch`.

    Args:
        policy: sizes of the bundle's graph.
        size: one size, or a range (its `multiple` is ignored); None for the bundle's own.
        batch: maximum batch size.
        bands: channels of the graph's input.

    Raises:
        EngineError: the graph does not take a size; the message names the nearest one.
    """
    if batch < 1:
        raise EngineError(f"the batch must be 1 or more; got {batch}")
    if size is None:
        sizes = (policy.min, policy.opt, policy.max)
    elif isinstance(size, DynamicSize):
        sizes = (size.min, size.opt, size.max)
    else:
        sizes = (size, size, size)
    for each in sizes:
        _check_size(each, policy)
    low, mid, high = sizes
    if any(not low[axis] <= mid[axis] <= high[axis] for axis in (0, 1)):
        raise EngineError(
            f"sizes must be min ≤ opt ≤ max in height and width; got {_text(low)}, {_text(mid)}, {_text(high)}"
        )
    return EngineProfile((1, bands, *low), (batch, bands, *mid), (batch, bands, *high))


def _check_size(size: Size, policy: SizePolicy) -> None:
    if any(not low <= length <= high for low, length, high in zip(policy.min, size, policy.max, strict=True)):
        takes = _text(policy.opt) if policy.is_fixed else f"{_text(policy.min)} to {_text(policy.max)}"
        raise EngineError(f"the graph takes {takes}; got {_text(size)}. Export it again for other sizes")
    fitting = tuple(fit_size(length, policy.multiple, policy.offset) for length in size)
    if not policy.is_fixed and fitting != size:
        grid = f"multiples of {policy.multiple}" + (f" plus {policy.offset}" if policy.offset else "")
        raise EngineError(f"the graph takes sizes that are {grid}; got {_text(size)}. The next one is {_text(fitting)}")


def _text(size: Sequence[int]) -> str:
    return "×".join(map(str, size))


def _installed() -> Flavor:
    """Installed flavour for the local GPU: TensorRT, which supports all GPUs, before TensorRT-RTX."""
    flavors = installed_flavors()
    if not flavors:
        raise MissingDependencyError("tensorrt", extra=FLAVORS["tensorrt"].extra, purpose="building an engine")
    return flavors[0]


def _capability(trt: TensorRT, sm: str) -> tuple[int, int]:
    """Parse `89` to (8, 9); raises EngineError unless this TensorRT-RTX builds for it."""
    known = _known_capabilities(trt.module)
    if sm not in known:
        raise EngineError(f"{trt.flavor} {trt.version} does not build for SM {sm!r}; it builds for {', '.join(known)}")
    return int(sm[:-1]), int(sm[-1])


def _known_capabilities(module: RtxModule) -> list[str]:
    names = [name.removeprefix("SM") for name in module.ComputeCapability.__members__]
    return sorted((name for name in names if name.isdigit()), key=int)
