"""Builds TensorRT engines from a bundle's ONNX graph and adds them to the bundle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ...arguments import check_arguments
from ...bundle import ENGINE_FOLDER, Bundle, StagedBundle, extend_bundle
from ...errors import EngineError, importing
from ...manifest import Artifact, EngineIdentity, EngineProfile, GraphPrecision, Size
from ...runtime.backends.tensorrt_library import TensorRT
from ..options import AtrousForm, BackendChoice
from ..sizes import DynamicSize
from .monitor import BuildProgress, BuildWatch
from .network import SerializedEngine, serialize_engine
from .target import BuilderOptions, Target, check_options, choose_targets, engine_profile

#: How to make a graph of each precision, for messages.
_MAKERS: Final = {
    "fp32": "export or pack the model with it",
    "fp16": "`atrous add-fp16`, atrous.add_fp16(bundle, images=…)",
    "int8": "`atrous quantize`, atrous.quantize(bundle, images=…)",
}


@dataclass(frozen=True)
class _Job:
    """Settings that all engines of one call share."""

    trt: TensorRT
    source: Artifact
    profile: EngineProfile
    options: BuilderOptions

    def identity(self, target: Target) -> EngineIdentity:
        return EngineIdentity(
            flavor=self.trt.flavor,
            version=self.trt.version,
            compute_capability=".".join(map(str, target.compute_capability)),
            cuda=self.trt.cuda,
            driver=target.driver,
            profile=self.profile,
            hardware_compatibility=self.options.hardware_compatibility,
            version_compatible=self.options.version_compatible,
        )

    def name(self, target: Target) -> str:
        return f"{self.source.precision}.{self.trt.flavor}-{self.trt.version}.sm{target.sm}"


@check_arguments
def build_engine(
    bundle: Bundle,
    *,
    precision: GraphPrecision = "fp16",
    backend: BackendChoice = "auto",
    sm: Sequence[str] = (),
    size: Size | DynamicSize | None = None,
    batch: int = 1,
    options: BuilderOptions | None = None,
    progress: BuildProgress | None = None,
) -> tuple[Bundle, tuple[Artifact, ...]]:
    """Build engines from the bundle's graph of one precision and add `engines/NAME.plan` and `reports/NAME.json`.

    An existing engine of the same precision, TensorRT and GPU is replaced. If anything fails, or on Ctrl-C, the bundle
    is unchanged.

    Args:
        bundle: a bundle with an ONNX graph of that precision.
        precision: precision of the graph; the engine computes in the graph's types.
        backend: `tensorrt` builds for the local GPU; `tensorrt-rtx` also for other GPUs, and needs none. `auto` takes
            `tensorrt-rtx` if `sm` is given, otherwise what is installed, `tensorrt` first.
        sm: compute capabilities to build for with TensorRT-RTX, one engine each: `("89", "120")`; the local GPU if
            empty.
        size: one size (height, width), which is fastest, or a range; None for the bundle's own.
        batch: maximum batch size; more than 1 needs a graph that was exported for a range of sizes.
        options: options of the builder.
        progress: called with the current step and the finished share of the build, 0–1; an exception in it stops the
            build.

    Returns:
        The reopened bundle, and the artifacts of the new engines, one per GPU.

    Raises:
        EngineError: the bundle lacks the graph; an option, size or GPU is not supported; or TensorRT fails.
        DeviceError: there is no GPU, and `sm` is empty.
        MissingDependencyError: TensorRT is not installed.
        BundleError: a file was changed, or the bundle cannot be written.
    """
    bundle = Bundle.open(bundle.path)
    source = _find_graph(bundle, precision)
    profile = engine_profile(bundle.manifest.input.size, size, batch, bands=bundle.manifest.input.channels)
    trt, targets = choose_targets(backend, sm)
    job = _Job(trt, source, profile, options or BuilderOptions())
    check_options(job.options, trt.flavor)
    engines = _build_all(bundle, job, targets, progress)
    modules = _modules(bundle.read(source))
    with extend_bundle(bundle, source=source) as staged:
        built = tuple(
            _add_engine(staged, job, target, engine, modules) for target, engine in zip(targets, engines, strict=True)
        )
    return Bundle.open(bundle.path), built


def _find_graph(bundle: Bundle, precision: GraphPrecision) -> Artifact:
    graphs = {artifact.precision: artifact for artifact in bundle.manifest.artifacts if artifact.kind == "onnx"}
    if precision not in _MAKERS:
        raise EngineError(f"unknown precision {precision!r}; expected {', '.join(_MAKERS)}")
    if precision not in graphs:
        raise EngineError(
            f"{bundle.path} has no {precision} ONNX graph, which the engine would be built from; it has: "
            f"{', '.join(graphs) or 'none'}. Make one: {_MAKERS[precision]}"
        )
    return graphs[precision]


def _build_all(
    bundle: Bundle, job: _Job, targets: Sequence[Target], progress: BuildProgress | None
) -> list[SerializedEngine]:
    graph = _written(bundle.read(job.source), job.options.atrous)
    engines = []
    for index, target in enumerate(targets):

        def report(doing: str, share: float, target: Target = target, index: int = index) -> None:
            if progress is not None:
                progress(f"SM {target.sm}: {doing}", (index + share) / len(targets))

        watch = BuildWatch(report)
        engines.append(serialize_engine(job.trt, graph, target, job.profile, job.options, watch, job.source.file))
    return engines


def _written(graph: bytes, form: AtrousForm) -> bytes:
    """The graph with its atrous convolutions in that form; it stays as it is where it has the form already."""
    if form == "dilated":
        return graph
    with importing("export", purpose=f"an engine with atrous={form!r}"):
        import onnx

        from ..passes import ATROUS_PASSES, run_passes
    written: bytes = run_passes(onnx.load_from_string(graph), [ATROUS_PASSES[form]()]).SerializeToString()
    return written


def _modules(graph: bytes) -> dict[str, str]:
    """Node → path of its PyTorch module; empty without onnx, which building an engine does not need."""
    try:
        import onnx

        from ..module_names import module_names
    except ImportError:
        return {}
    return module_names(onnx.load_from_string(graph))


def _add_engine(
    staged: StagedBundle, job: _Job, target: Target, engine: SerializedEngine, modules: Mapping[str, str]
) -> Artifact:
    name = job.name(target)
    file, report = f"{ENGINE_FOLDER}/{name}.plan", f"reports/{name}.json"
    staged.write(file, engine.data)
    staged.write(report, _report(job, target, engine, modules))
    limits = {
        "workspace_bytes": job.options.workspace_bytes,
        "optimization_level": job.options.optimization_level,
    }
    provenance = {
        "from": job.source.sha256,
        "atrous": job.options.atrous,
        **engine.report.summary(),
        **{key: value for key, value in limits.items() if value is not None},
        "report": report,
    }
    artifact = staged.artifact(file, kind="engine", precision=job.source.precision, provenance=provenance)
    artifact = dataclasses.replace(artifact, engine=job.identity(target))
    staged.add(artifact)
    return artifact


def _report(job: _Job, target: Target, engine: SerializedEngine, modules: Mapping[str, str]) -> bytes:
    content = {
        "graph": job.source.file,
        "engine": dataclasses.asdict(job.identity(target)),
        "summary": engine.report.summary(),
        "layers": [
            dataclasses.asdict(layer)
            | {"modules": list(dict.fromkeys(modules[node] for node in layer.nodes if node in modules))}
            for layer in engine.report.layers
        ],
    }
    return (json.dumps(content, indent=1) + "\n").encode()
