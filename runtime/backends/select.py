"""Choice of a backend and an artifact of a bundle: those that were asked for, or the first that work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...arguments import MAX_THREADS
from ...bundle import Bundle
from ...errors import DeviceError, EngineError, MissingDependencyError
from ...manifest import Artifact, Precision
from . import onnxruntime
from .base import Backend, DeviceBackend
from .cpu import bf16_evidence, in_bf16
from .notices import warn_once
from .on_gpu import kernels_origin
from .registry import BACKENDS
from .spec import BackendSpec
from .tuned import tuned_graph

#: The backend that everything is verified against: it runs wherever atrous is installed.
REFERENCE: Final = onnxruntime.SPEC

#: What `auto` tries, in this order; a graph that was packed quantized has no FP32.
_BY_PRECISION: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")


def open_backend(
    bundle: Bundle, *, backend: str = "auto", precision: str = "auto", threads: int = 0, fast: bool = False
) -> Backend:
    """Open one of the bundle's artifacts in a backend.

    `auto` takes the first that works of: an engine of the bundle that fits here, ONNX Runtime on CUDA, OpenVINO, ONNX
    Runtime on the CPU. A GPU backend that should work but fails to open is skipped; the reason is logged once.

    Args:
        bundle: holds the artifacts.
        backend: a name in `BACKENDS`, which then has to work, or `auto`.
        precision: `fp32`, `fp16`, `int8`, `bf16` for the FP32 graph in bfloat16, or `auto` for the most precise.
        threads: CPU threads of one inference; 0 for all cores.
        fast: let `auto` take `bf16` where the bundle has evidence that it keeps the labels on this kind of CPU.

    Raises:
        EngineError: unknown backend, or it refuses the artifact, or `threads` is negative, or a precision is named and
            `fast` as well.
        MissingDependencyError: the backend's library is not installed.
        DeviceError: a GPU was asked for and cannot be used.
        BundleError: the artifact is not the file that was exported or built; nothing takes its place.
    """
    if threads < 0:
        raise EngineError(f"threads must be 0 (all cores) or more; got {threads}")
    if threads > MAX_THREADS:
        raise EngineError(f"threads must be {MAX_THREADS} or less; got {threads}")
    if fast and precision != "auto":
        raise EngineError(f"fast chooses the precision; got precision={precision!r} as well. Leave one of them out")
    if backend != "auto":
        spec = find_spec(backend)
        return _open(spec, bundle, _fast(spec, bundle) if fast else precision, threads)
    for spec in BACKENDS.values():
        if (
            spec.device == "cpu"
            or precision == "bf16"
            or bundle.find(kind=spec.reads) is None
            or not spec.is_expected()
        ):
            continue
        try:
            opened = _open(spec, bundle, precision, threads)
            _check_kernels(opened)
        except (EngineError, DeviceError, MissingDependencyError) as exc:
            warn_once(f"skipping the {spec.name} backend for {bundle.path}: {exc}; trying the next one")
        else:
            return opened
    spec = cpu_backend()
    return _open(spec, bundle, _fast(spec, bundle) if fast else precision, threads)


def _fast(spec: BackendSpec, bundle: Bundle) -> str:
    """The precision that `fast` takes: bf16 only where its labels were verified."""
    if spec.bf16_objection() is not None:
        return "auto"
    if bf16_evidence(bundle, spec.name) is not None:
        return "bf16"
    warn_once(
        f"{bundle.path} has no evidence that bf16 keeps its labels on this kind of CPU: fast takes the most precise "
        f"graph instead. To verify it: atrous add-bf16 {bundle.path}"
    )
    return "auto"


def open_reference(bundle: Bundle, *, precision: str = "auto", threads: int = 0) -> Backend:
    """Open a graph in ONNX Runtime on the CPU, which everything is verified against; raises as `open_backend`.

    The graph is the canonical one, never one that was tuned.
    """
    return REFERENCE.open(bundle, canonical_artifact(REFERENCE, bundle, precision), threads=threads)


def find_spec(name: str) -> BackendSpec:
    """The backend of that name.

    Raises:
        EngineError: there is none.
    """
    if name not in BACKENDS:
        raise EngineError(f"unknown backend {name!r}; expected auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def cpu_backend() -> BackendSpec:
    """The fastest installed backend of the CPU."""
    return next(spec for spec in BACKENDS.values() if spec.device == "cpu" and spec.is_expected())


def choose_artifact(spec: BackendSpec, bundle: Bundle, precision: str = "auto") -> Artifact:
    """As `canonical_artifact`, or in its place the graph that was tuned for this backend and kind of CPU."""
    artifact = canonical_artifact(spec, bundle, precision)
    return tuned_graph(bundle, artifact, spec) or artifact


def canonical_artifact(spec: BackendSpec, bundle: Bundle, precision: str = "auto") -> Artifact:
    """The artifact of that precision (`auto`: the most precise) that the backend can open here.

    Raises:
        EngineError: none is there, or none fits; the message says why each does not.
        DeviceError, MissingDependencyError: whether one fits cannot be told, for there is no GPU or no library for it.
    """
    if precision == "bf16":
        if (objection := spec.bf16_objection()) is not None:
            raise EngineError(f"the {spec.name} backend cannot run {bundle.path} in bf16: {objection}")
        return in_bf16(canonical_artifact(spec, bundle, "fp32"))
    artifacts = [artifact for artifact in bundle.manifest.artifacts if artifact.kind == spec.reads]
    candidates = by_precision(artifacts, precision)
    if not candidates:
        raise EngineError(_nothing_to_open(spec, bundle, precision, artifacts))
    reasons = spec.misfits(candidates)
    for artifact, reason in zip(candidates, reasons, strict=True):
        if reason is None:
            return artifact
    found = "; ".join(f"{artifact.file} {reason}" for artifact, reason in zip(candidates, reasons, strict=True))
    raise EngineError(
        f"no {spec.reads} of {bundle.path} fits here: {found}. Build one on this machine: atrous build {bundle.path}"
    )


def _nothing_to_open(spec: BackendSpec, bundle: Bundle, precision: str, artifacts: Sequence[Artifact]) -> str:
    asked = "" if precision == "auto" else f"{precision} "
    if spec.reads == "engine":
        have = ", ".join(artifact.file for artifact in artifacts) or "none"
        return f"{bundle.path} has no {asked}engine; it has: {have}. Build one: atrous build {bundle.path}"
    have = ", ".join(artifact.precision for artifact in artifacts) or "none"
    return f"{bundle.path} has no {asked}ONNX graph for the {spec.name} backend; it has: {have}"


def _open(spec: BackendSpec, bundle: Bundle, precision: str, threads: int) -> Backend:
    return spec.open(bundle, choose_artifact(spec, bundle, precision), threads=threads)


def by_precision(artifacts: Sequence[Artifact], precision: str) -> list[Artifact]:
    """Those of that precision; `auto`: all, the most precise first."""
    wanted: Sequence[str] = _BY_PRECISION if precision == "auto" else (precision,)
    return [artifact for each in wanted for artifact in artifacts if artifact.precision == each]


def _check_kernels(backend: Backend) -> None:
    """Now, and not with the first image, when another backend can still be opened."""
    if isinstance(backend, DeviceBackend):
        properties = backend.make_device().properties
        kernels_origin(properties.compute_capability, properties.cuda)
