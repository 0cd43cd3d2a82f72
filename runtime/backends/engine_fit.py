"""Check that an engine fits this machine, by its entry in the manifest, before TensorRT sees a byte."""

from __future__ import annotations

from typing import Final

from ...bundle import Bundle
from ...errors import AtrousError, EngineError
from ...gpu import DeviceProperties
from ...manifest import Artifact, EngineIdentity
from .tensorrt_library import load_tensorrt, version_numbers

#: Engines built for "ampere+" run from here on.
_AMPERE: Final = (8, 0)


def check_fit(bundle: Bundle, artifact: Artifact, gpu: DeviceProperties) -> None:
    """Refuse an engine that was not built for the GPU and the TensorRT that are here.

    Raises:
        EngineError: it does not fit; the message says why.
    """
    reason = why_not(artifact, gpu)
    if reason is not None:
        raise EngineError(f"{artifact.file} {reason}. Build an engine on this machine: atrous build {bundle.path}")


def why_not(artifact: Artifact, gpu: DeviceProperties) -> str | None:
    """Why an engine cannot be loaded here, as the end of a sentence about it; None where nothing speaks against it."""
    identity = artifact.engine
    if identity is None:
        return "has no identity in the manifest"
    return _gpu_misfit(identity, gpu) or _library_misfit(identity) or _driver_misfit(identity, gpu)


def _gpu_misfit(identity: EngineIdentity, gpu: DeviceProperties) -> str | None:
    own = ".".join(map(str, gpu.compute_capability))
    if identity.hardware_compatibility == "ampere+":
        return (
            None if gpu.compute_capability >= _AMPERE else f"runs from compute capability 8.0 on; {gpu.name} has {own}"
        )
    if identity.compute_capability != own:
        return f"was built for compute capability {identity.compute_capability}; {gpu.name} has {own}"
    return None


def _library_misfit(identity: EngineIdentity) -> str | None:
    try:
        trt = load_tensorrt(identity.flavor)
    except AtrousError as exc:
        return f"cannot be loaded: {exc}"
    if identity.version == trt.version or (identity.version_compatible and _is_later(trt.version, identity.version)):
        return None
    return f"was built by {identity.flavor} {identity.version}; installed is {trt.version}"


def _is_later(version: str, than: str) -> bool:
    """True if a version is at least another of the same major number."""
    one, other = version_numbers(version), version_numbers(than)
    return one[0] == other[0] and one >= other


def _driver_misfit(identity: EngineIdentity, gpu: DeviceProperties) -> str | None:
    """Within a major version of CUDA, older drivers run newer libraries; across, they do not."""
    needed = load_tensorrt(identity.flavor).cuda or identity.cuda
    if needed is None or gpu.cuda[0] >= int(needed.partition(".")[0]):
        return None
    has = ".".join(map(str, gpu.cuda))
    return f"needs a driver for CUDA {needed}; the driver here is for CUDA {has}: install a newer one"
