"""Optimization of a bundle for this machine: the form of each atrous convolution that measures fastest."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from ...arguments import check_arguments
from ...bundle import TUNED_FOLDER, Bundle, StagedBundle, extend_bundle
from ...errors import EngineError
from ...evidence import TunedLayer, Tuning, Verification
from ...manifest import Artifact
from ...runtime.backends import Backend, BackendSpec, cpu_backend, find_spec
from ...runtime.backends.cpu import this_cpu
from ...runtime.backends.select import REFERENCE, canonical_artifact
from ...runtime.preprocess import prepare_image
from ..passes import ATROUS_PASSES, run_passes
from ..verify import TOLERANCES, Named, covering_probes, prove, synthetic_photo
from .layers import AtrousLayer, cut_layers
from .timing import Timing, fastest, time_in_turns

DILATED: Final = "dilated"
#: Called with the name of the current step, the number of layers done, and their total.
OptimizeProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class OptimizedGraph:
    """Result for the graph of one precision.

    Attributes:
        precision: precision that was measured.
        layers: every atrous convolution with its fastest form.
        tuned: file of the tuned graph that was written, or None where the canonical one stays.
        reason: why the canonical graph stays; None where a tuned one was written.
        canonical_ms: median milliseconds of the whole canonical graph; None where the whole was not timed.
        tuned_ms: those of the graph with the fastest forms.
        verification: comparison of that graph with the canonical one.
    """

    precision: str
    layers: tuple[TunedLayer, ...]
    tuned: str | None = None
    reason: str | None = None
    canonical_ms: float | None = None
    tuned_ms: float | None = None
    verification: Verification | None = None


@dataclass(frozen=True)
class OptimizeReport:
    """Result of `optimize`: what was measured, in which backend, for every precision."""

    backend: str
    version: str
    graphs: tuple[OptimizedGraph, ...]


@check_arguments
def optimize(
    bundle: Bundle,
    *,
    backend: str = "auto",
    precision: str = "auto",
    progress: OptimizeProgress = lambda *_: None,
) -> tuple[Bundle, OptimizeReport]:
    """Write each atrous convolution in the form that is fastest on this machine, as tuned graphs beside the others.

    Every atrous convolution is timed alone in each form, at the bundle's best size, in turns. It stays dilated unless
    another form is faster beyond noise (`timing.Timing.is_faster_than`). Then the whole graph is timed beside the
    canonical one in the same way and compared with it on all sizes; only a graph that is faster and computes the same
    is kept. It is loaded where its backend, the version of that and the kind of CPU are the same; the canonical graph
    stays as it is. An earlier tuned graph for this machine is replaced. If anything fails, or on Ctrl-C, the bundle is
    unchanged.

    Args:
        bundle: a bundle with an ONNX graph.
        backend: a name in `runtime.backends.BACKENDS`, or `auto` for the one that `load` takes on this CPU. Where it
            cannot be measured here, the form is chosen by rule: dilated; the report says why.
        precision: `fp32`, `fp16`, `int8`, `bf16` for the FP32 graph in bfloat16, or `auto` for every graph of the
            bundle in its own.
        progress: see `OptimizeProgress`.

    Returns:
        The reopened bundle, and the report.

    Raises:
        EngineError: the backend is unknown or refuses a graph, or the bundle has no graph of that precision.
        ExportError: a graph cannot be rewritten.
        BundleError: a file was changed, or the bundle cannot be written.
    """
    bundle = bundle.reopen()
    spec = cpu_backend() if backend == "auto" else find_spec(backend)
    sources = _sources(bundle, spec, precision)
    rule = rule_for(spec)
    if rule is not None:
        graphs = tuple(OptimizedGraph(each.precision, (), reason=rule) for each in sources)
        return bundle, OptimizeReport(spec.name, spec.version, graphs)
    found = []
    for source in sources:
        outcome = _optimize_graph(bundle, source, spec, progress)
        bundle = _keep(bundle, source, spec, outcome)
        found.append(outcome.result)
    return bundle, OptimizeReport(spec.name, spec.version, tuple(found))


def rule_for(spec: BackendSpec) -> str | None:
    """Why the dilated form is taken without measuring, or None where the backend can be measured here."""
    if spec.reads == "engine":
        return (
            "dilated by rule: TensorRT times its own kernels for dilated convolutions while it builds, and another "
            "form takes that choice from it. To build an engine of one nonetheless: atrous build --atrous taps"
        )
    if spec.device == "gpu":
        return "dilated by rule: the libraries of GPUs have dilated kernels, and other forms move more memory"
    if not spec.is_installed:
        return (
            f"dilated by rule: {spec.name} is not installed here, so that nothing can be measured, and the dilated "
            f"form is the one that every backend has kernels for. Install it: {spec.packages[0].command}"
        )
    return None


def _sources(bundle: Bundle, spec: BackendSpec, precision: str) -> list[Artifact]:
    """The canonical graphs of that precision."""
    if precision != "auto":
        return [canonical_artifact(REFERENCE if spec.reads == "engine" else spec, bundle, precision)]
    graphs = [artifact for artifact in bundle.manifest.artifacts if artifact.kind == "onnx"]
    if not graphs:
        raise EngineError(f"{bundle.path} has no ONNX graph to optimize; export or pack one")
    return graphs


@dataclass(frozen=True, eq=False)
class _Outcome:
    """Result for one graph, and the tuned graph where there is one to keep."""

    result: OptimizedGraph
    tuned: onnx.ModelProto | None = None


class _Bench:
    """Opens graphs in one backend as the runtime opens those of a bundle.

    Args:
        bundle: describes the images.
        source: the canonical graph.
        spec: the backend.
        folder: where graphs are written.
    """

    def __init__(self, bundle: Bundle, source: Artifact, spec: BackendSpec, folder: Path) -> None:
        self.bundle, self.source, self.spec = bundle, source, spec
        self._staged = StagedBundle(folder)

    def open(self, model: onnx.ModelProto) -> Backend:
        """A graph that is not in the bundle."""
        self._staged.write("graph.onnx", model.SerializeToString())
        artifact = self._staged.artifact("graph.onnx", kind="onnx", precision=self.source.precision, provenance={})
        return self.spec.open(Bundle(self._staged.path, self.bundle.manifest), artifact)

    def open_canonical(self) -> Backend:
        """The canonical graph."""
        return self.spec.open(self.bundle, self.source)


def _optimize_graph(bundle: Bundle, source: Artifact, spec: BackendSpec, progress: OptimizeProgress) -> _Outcome:
    model = run_passes(onnx.load_from_string(bundle.read(source)), [])
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(bundle, source, spec, Path(folder))
        layers = _time_layers(bench, model, progress)
        written = _written(model, layers)
        if written is None:
            reason = "no other form is faster than dilated" if layers else "it has no dilated convolution"
            return _Outcome(OptimizedGraph(source.precision, layers, reason=reason))
        return _validate(bench, layers, written)


def _time_layers(bench: _Bench, model: onnx.ModelProto, progress: OptimizeProgress) -> tuple[TunedLayer, ...]:
    """The fastest form of each layer; those that cost the same are timed once."""
    cut, left = cut_layers(model, bench.bundle.manifest.input.size.opt)
    known: dict[str, dict[str, Timing]] = {}
    found = []
    for number, layer in enumerate(cut, start=1):
        if layer.cost not in known:
            known[layer.cost] = _time_forms(bench, layer)
        timings = known[layer.cost]
        ms = {form: round(timing.median_ms, 4) for form, timing in timings.items()}
        found.append(TunedLayer(layer.name, fastest(timings, DILATED), ms))
        progress(f"timing {bench.source.precision} layers", number, len(cut))
    return (*found, *(TunedLayer(name, DILATED) for name in left))


def _time_forms(bench: _Bench, layer: AtrousLayer) -> dict[str, Timing]:
    images = np.random.default_rng(0).standard_normal(layer.shape, np.float32)
    calls = {DILATED: partial(bench.open(layer.graph).infer, images)}
    for form, rewrite in ATROUS_PASSES.items():
        each = rewrite()
        graph = run_passes(layer.graph, [each])
        if each.rewritten:
            calls[form] = partial(bench.open(graph).infer, images)
    return time_in_turns(calls, DILATED)


def _written(model: onnx.ModelProto, layers: Sequence[TunedLayer]) -> onnx.ModelProto | None:
    """The graph with each layer in its form, or None where all stay dilated."""
    passes = [
        rewrite(only={layer.name for layer in layers if layer.form == form}) for form, rewrite in ATROUS_PASSES.items()
    ]
    written = run_passes(model, passes)
    return written if any(each.rewritten for each in passes) else None


def _validate(bench: _Bench, layers: tuple[TunedLayer, ...], written: onnx.ModelProto) -> _Outcome:
    """Time the whole graph beside the canonical one, and compare what they compute."""
    source, manifest = bench.source, bench.bundle.manifest
    file = _file_name(source, bench.spec)
    canonical, tuned = bench.open_canonical(), bench.open(written)
    size = manifest.input.size.opt
    photo = synthetic_photo(np.random.default_rng(0), size, manifest.input.bands)
    images = prepare_image(photo, size, manifest.input)[None]
    timings = time_in_turns(
        {"canonical": partial(canonical.infer, images), "tuned": partial(tuned.infer, images)}, "canonical"
    )
    canonical_ms, tuned_ms = (round(timings[name].median_ms, 4) for name in ("canonical", "tuned"))
    result = OptimizedGraph(source.precision, layers, canonical_ms=canonical_ms, tuned_ms=tuned_ms)
    if not timings["tuned"].is_faster_than(timings["canonical"]):
        reason = "its layers are faster alone, but the whole network is not faster beyond noise"
        return _Outcome(dataclasses.replace(result, reason=reason))
    where = f"in {bench.spec.name} ({tuned.device})"
    (check,) = prove(
        [Named(f"{file} {where}", tuned.infer)],
        Named(f"{source.file} {where}", canonical.infer),
        manifest.input,
        tolerance=TOLERANCES[source.precision],
        probes=covering_probes(manifest.input, noise=source.precision == "fp32"),
        channels=manifest.output.channels,
    )
    if not check.passed:
        reason = (
            f"it computes something else: largest difference {check.max_abs:.3g}, same class at "
            f"{check.argmax_agreement:.3%} of positions"
        )
        return _Outcome(dataclasses.replace(result, reason=reason, verification=check))
    return _Outcome(dataclasses.replace(result, tuned=file, verification=check), written)


def _file_name(source: Artifact, spec: BackendSpec) -> str:
    """The file of a graph that was tuned for this backend and this kind of CPU."""
    cpu = this_cpu()
    readable = re.sub(r"[^a-z0-9]+", "-", cpu.name.lower()).strip("-")
    kind = hashlib.sha256(str(cpu).encode()).hexdigest()[:8]
    return f"{TUNED_FOLDER}/{source.precision}.{spec.name}.{readable}-{kind}.onnx"


def _keep(bundle: Bundle, source: Artifact, spec: BackendSpec, outcome: _Outcome) -> Bundle:
    """Write the tuned graph, or remove an earlier one for this machine where the canonical graph stays."""
    file, result = _file_name(source, spec), outcome.result
    stored = next(each for each in bundle.manifest.artifacts if each.file == source.file)
    if outcome.tuned is None and all(each.file != file for each in bundle.manifest.artifacts):
        return bundle
    with extend_bundle(bundle, source=stored) as staged:
        manifest = staged.manifest.without(file)
        if outcome.tuned is not None and result.verification is not None:
            staged.write(file, outcome.tuned.SerializeToString())
            provenance = {"from": source.sha256}
            artifact = staged.artifact(file, kind="tuned", precision=source.precision, provenance=provenance)
            artifact = dataclasses.replace(artifact, tuned_for=_tuning(bundle, spec, result))
            manifest = manifest.with_artifact(artifact, result.verification)
        staged.write_manifest(manifest)
    return Bundle.open(bundle.path)


def _tuning(bundle: Bundle, spec: BackendSpec, result: OptimizedGraph) -> Tuning:
    return Tuning(
        backend=spec.name,
        version=spec.version,
        cpu=this_cpu(),
        threads=os.cpu_count() or 1,
        input=(1, bundle.manifest.input.channels, *bundle.manifest.input.size.opt),
        layers=result.layers,
        canonical_ms=result.canonical_ms or 0,
        tuned_ms=result.tuned_ms or 0,
    )
