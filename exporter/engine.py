"""A bundle's ONNX graph → TensorRT engines in the same bundle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..bundle import ENGINE_FOLDER, Bundle, StagedBundle, extend_bundle
from ..errors import EngineError
from ..manifest import Artifact, EngineIdentity, EngineProfile, Precision, Size
from ..runtime.backends.tensorrt_library import TensorRT
from .description import DynamicSize
from .engine_monitor import BuildWatch, Progress
from .engine_network import Plan, build_plan
from .engine_target import BuilderOptions, Target, check_options, choose_targets, engine_profile
from .options import BackendChoice

#: What makes a graph of each precision.
_MAKERS: Final = {
    "fp32": "export or pack the model with it",
    "fp16": "`atrous add-fp16`, atrous.add_fp16(bundle, images=…)",
    "int8": "`atrous quantize`, atrous.quantize(bundle, images=…)",
}


@dataclass(frozen=True)
class _Job:
    """What all plans of one call have in common."""

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


def build_engine(
    bundle: Bundle,
    *,
    precision: Precision = "fp16",
    backend: BackendChoice = "auto",
    sm: Sequence[str] = (),
    size: Size | DynamicSize | None = None,
    batch: int = 1,
    options: BuilderOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Bundle, tuple[Artifact, ...]]:
    """Build engines of the bundle's graph of one precision and add them: `engines/NAME.plan`, `reports/NAME.json`.

    An engine of the same precision, TensorRT and GPU that was there before is replaced. Whatever goes wrong, also
    Ctrl-C, the bundle stays as it was.

    Args:
        bundle: has an ONNX graph of that precision.
        precision: of the graph; the engine computes in the graph's types.
        backend: `tensorrt` builds for the GPU here; `tensorrt-rtx` also for others, without one. `auto` takes
            `tensorrt-rtx` where `sm` is given, otherwise what is installed, `tensorrt` first.
        sm: compute capabilities to build for with TensorRT-RTX, a plan each: `("89", "120")`; the GPU here if empty.
        size: one size (height, width), which is fastest, or a range; the bundle's own when None.
        batch: the most pictures of one inference; the graph must have been exported for a range of sizes for more
            than 1.
        options: the builder's.
        progress: called with what is being done and the share of all that is done, 0–1; what it raises stops the
            build.

    Returns:
        The bundle, opened again, and the engines that were built, one for each GPU.

    Raises:
        EngineError: there is no such graph; an option, a size or a GPU that does not fit; or TensorRT fails, with its
            reasons.
        DeviceError: there is no GPU, and `sm` names none.
        MissingDependencyError: TensorRT is not installed.
        BundleError: a file was changed, or the bundle cannot be written.
    """
    bundle = Bundle.open(bundle.path)
    source = _find_graph(bundle, precision)
    profile = engine_profile(bundle.manifest.input.size, size, batch)
    trt, targets = choose_targets(backend, sm)
    job = _Job(trt, source, profile, options or BuilderOptions())
    check_options(job.options, trt.flavor)
    plans = _build_all(bundle, job, targets, progress)
    with extend_bundle(bundle) as staged:
        manifest = Bundle.open(staged.path).manifest
        built = tuple(_add_plan(staged, job, target, plan) for target, plan in zip(targets, plans, strict=True))
        for artifact in built:
            manifest = manifest.with_artifact(artifact)
        staged.write_manifest(manifest)
    return Bundle.open(bundle.path), built


def _find_graph(bundle: Bundle, precision: Precision) -> Artifact:
    graphs = {artifact.precision: artifact for artifact in bundle.manifest.artifacts if artifact.kind == "onnx"}
    if precision not in _MAKERS:
        raise EngineError(f"unknown precision {precision!r}; expected {', '.join(_MAKERS)}")
    if precision not in graphs:
        raise EngineError(
            f"{bundle.path} has no {precision} ONNX graph, of which the engine would take its types; it has: "
            f"{', '.join(graphs) or 'none'}. Make one: {_MAKERS[precision]}"
        )
    return graphs[precision]


def _build_all(bundle: Bundle, job: _Job, targets: Sequence[Target], progress: Progress | None) -> list[Plan]:
    graph = bundle.read(job.source)
    plans = []
    for index, target in enumerate(targets):

        def report(doing: str, share: float, target: Target = target, index: int = index) -> None:
            if progress is not None:
                progress(f"SM {target.sm}: {doing}", (index + share) / len(targets))

        watch = BuildWatch(report)
        plans.append(build_plan(job.trt, graph, target, job.profile, job.options, watch, job.source.file))
    return plans


def _add_plan(staged: StagedBundle, job: _Job, target: Target, plan: Plan) -> Artifact:
    name = job.name(target)
    file, report = f"{ENGINE_FOLDER}/{name}.plan", f"reports/{name}.json"
    staged.write(file, plan.data)
    staged.write(report, _report(job, target, plan))
    limits = {
        "workspace_bytes": job.options.workspace_bytes,
        "optimization_level": job.options.optimization_level,
    }
    provenance = {
        "from": job.source.sha256,
        **plan.report.summary(),
        **{key: value for key, value in limits.items() if value is not None},
        "report": report,
    }
    artifact = staged.artifact(file, kind="engine", precision=job.source.precision, provenance=provenance)
    return dataclasses.replace(artifact, engine=job.identity(target))


def _report(job: _Job, target: Target, plan: Plan) -> bytes:
    content = {
        "graph": job.source.file,
        "engine": dataclasses.asdict(job.identity(target)),
        "summary": plan.report.summary(),
        "layers": [dataclasses.asdict(layer) for layer in plan.report.layers],
    }
    return (json.dumps(content, indent=1) + "\n").encode()
