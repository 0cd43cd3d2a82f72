"""A verified FP32 graph → an INT8 graph beside it in the same bundle, with a report of what that costs."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from ..bundle import Bundle, extend_bundle
from ..errors import CalibrationError, EngineError
from ..exporter.keeping import kept_by_pattern
from ..exporter.passes import KeptNode, run_passes
from ..exporter.verify import TOLERANCES, FloatArray, compare, probe_inputs
from ..manifest import Artifact, Verification
from ..runtime.backends import open_reference
from ..runtime.backends.onnxruntime import OnnxSession
from ..runtime.image import ImageSource
from .accuracy import Comparison, Reference
from .budget import check_max_drop, hold_budget
from .cache import Calibration
from .collect import collect_histograms
from .findings import Findings, make_report
from .histogram import Histogram
from .images import CalibrationImages
from .options import DEFAULT_METHOD, Method, QuantizeOptions
from .plan import Plan, plan_quantization
from .qdq import usable_plan
from .ranges import choose_ranges, known_ranges
from .recipe import Recipe, fp16_misfits
from .report import render_text
from .report_html import render_html
from .results import BudgetStep, QuantizationReport
from .sensitivity import Sensitivity, measure_sensitivity, rank_layers, sensitivity_batches

INT8_FILE: Final = "model.int8.onnx"
CALIBRATION_FILE: Final = "calibration.json"
HTML_FILE: Final = "reports/int8.html"
TEXT_FILE: Final = "reports/int8.txt"
#: Called with what is being done, how much of that is done, and how much there is.
Progress = Callable[[str, int, int], None]


def quantize(
    bundle: Bundle,
    *,
    images: str | os.PathLike[str] | Sequence[ImageSource],
    masks: str | os.PathLike[str] | None = None,
    method: Method = DEFAULT_METHOD,
    max_drop: float | None = None,
    keep: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Bundle, QuantizationReport]:
    """Add `model.int8.onnx`, made from the FP32 graph and compared with it; FP32 input and output.

    The activations on the pictures are observed one picture at a time, and ranges chosen from what was seen. Then every
    layer is measured by itself, and all pictures are labelled by both graphs (`docs/quantization.md`). The ranges go
    into `calibration.json`, from which they are taken when the same model is quantized with the same pictures and
    method again; what was found out goes into `reports/`. What an earlier call made is replaced. Whatever goes wrong,
    also Ctrl-C, the bundle stays as it was.

    Args:
        bundle: has an FP32 graph.
        images: a folder of pictures, or pictures, as the network will see them in use; a hundred that differ are
            plenty. They need no masks.
        masks: a folder with a mask `NAME.png` for each picture `NAME.*`. What is lost is then counted in points of mean
            IoU; without masks, in points of agreement: pixels that get the label that they get in FP32.
        method: how a range is chosen: `minmax`, `percentile`, `entropy` or `mse`.
        max_drop: points that may be lost; the most sensitive layers leave INT8 until that holds.
        keep: patterns (`node_Conv_*`) of layers that must not be INT8.
        options: how many pictures are used, ids of masks that are void, ranges that are known.
        progress: see `Progress`.

    Returns:
        The bundle, opened again, and what was done and measured.

    Raises:
        CalibrationError: the pictures, the activations on them, a pattern or the calibration are unusable; the graph is
            quantized already, or there is nothing in it to quantize; `max_drop` cannot be held, or without it more than
            a tenth of the pixels get another label.
        EvaluationError: a mask is missing or does not fit its picture.
        EngineError: there is no FP32 graph, or ONNX Runtime fails.
        BundleError: a file was changed, or the bundle cannot be written.
        ShapeError: an array that was given as a picture is none.
    """
    if max_drop is not None:
        check_max_drop(max_drop)
    options = options or QuantizeOptions()
    job = _open(bundle, images, method, keep, options, progress)
    return _run(job, masks, max_drop, options)


def _run(
    job: _Job,
    masks: str | os.PathLike[str] | None,
    max_drop: float | None,
    options: QuantizeOptions,
) -> tuple[Bundle, QuantizationReport]:
    ranges, histograms = _calibrate(job, None if options.calibration is None else Path(options.calibration))
    plan = _require_layers(usable_plan(job.plan, ranges.amax))
    reference = Reference(
        job.bundle,
        job.pictures.readable,
        masks=None if masks is None else Path(masks),
        ignore=options.ignore,
        progress=job.told("labelling in FP32", len(job.pictures.readable)),
    )
    manifest = job.bundle.manifest
    batches = sensitivity_batches(reference.sources, manifest.input)
    told = job.told("measuring layers", len(plan.layers))
    sensitivity = measure_sensitivity(job.graph, plan, ranges.amax, batches, manifest.output, progress=told)
    recipe = Recipe(job.graph, ranges.amax, fp16_misfits(job.graph, reference.sources, manifest.input))
    chosen, steps = _choose(job, plan, recipe, reference, rank_layers(sensitivity), max_drop)
    verification = _verify(job, chosen, batches, max_drop, sensitivity)
    findings = Findings(
        calibration=ranges,
        histograms=histograms or _observe_batches(job, chosen.plan, batches),
        reused=histograms is None,
        plan=chosen.plan,
        sensitivity=sensitivity,
        sensitivity_pictures=len(batches),
        steps=steps,
        max_drop=max_drop,
        comparison=chosen.comparison,
        samples=reference.samples(chosen.graph, chosen.comparison),
        skipped=(*job.pictures.skipped, *reference.skipped),
        seed=options.seed,
        rest=recipe.rest,
    )
    report = make_report(job.bundle, job.source, chosen.graph, findings, seconds=time.perf_counter() - job.started)
    _write(job, chosen, ranges, verification, report)
    return Bundle.open(job.bundle.path), report


@dataclass(frozen=True, eq=False)
class _Job:
    """What is quantized, and with what.

    Attributes:
        source: the FP32 graph's artifact.
        graph: that graph, with its types inferred.
        whole: the plan for every layer that can be INT8, for which ranges are chosen.
        plan: the same without the layers that the user keeps.
        started: by `time.perf_counter`, in seconds.
    """

    bundle: Bundle
    source: Artifact
    graph: onnx.ModelProto
    whole: Plan
    plan: Plan
    pictures: CalibrationImages
    method: Method
    progress: Progress
    started: float

    def told(self, what: str, total: int) -> Callable[[int], None]:
        """Reports the progress of one step."""
        return lambda done: self.progress(what, done, total)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A plan, the graph that it makes, and what that costs on all pictures."""

    plan: Plan
    graph: onnx.ModelProto
    fp32_nodes: Sequence[KeptNode]
    comparison: Comparison

    @property
    def drop(self) -> float:
        """Points lost against FP32."""
        return self.comparison.accuracy.drop


def _open(
    bundle: Bundle,
    images: str | os.PathLike[str] | Sequence[ImageSource],
    method: Method,
    keep: Sequence[str],
    options: QuantizeOptions,
    progress: Progress,
) -> _Job:
    """Judge everything that can be judged before the first inference."""
    started = time.perf_counter()
    bundle.check()
    source = bundle.find(kind="onnx", precision="fp32")
    if source is None:
        raise EngineError(f"{bundle.path} has no FP32 graph to make INT8 from; export or pack one")
    pictures = CalibrationImages(images, bundle.manifest.input, max_images=options.max_images, seed=options.seed)
    graph = run_passes(onnx.load_from_string(bundle.read(source)), [])
    whole = plan_quantization(graph)
    names = [*(layer.name for layer in whole.layers), *(node.name for node in whole.kept)]
    wanted = kept_by_pattern(names, keep, kind="layer", error=CalibrationError)
    plan = _require_layers(whole.without(wanted))
    return _Job(bundle, source, graph, whole, plan, pictures, method, progress, started)


def _require_layers(plan: Plan) -> Plan:
    if plan.layers:
        return plan
    reasons = "; ".join(f"{each.name}: {each.reason}" for each in plan.kept[:3])
    raise CalibrationError(
        f"there is no layer to quantize: {reasons or 'the graph has no convolution or matrix product'}"
        f"{'; …' if len(plan.kept) > 3 else ''}"
    )


def _calibrate(job: _Job, file: Path | None) -> tuple[Calibration, Mapping[str, Histogram] | None]:
    """The ranges, and what was seen; None where nothing was observed because the ranges were known."""
    known = known_ranges(
        file or job.bundle.path / CALIBRATION_FILE,
        job.whole.tensors,
        job.pictures,
        model_sha256=job.source.sha256,
        method=job.method,
        required=file is not None,
    )
    if known:
        return known, None
    return choose_ranges(
        job.graph,
        job.whole.tensors,
        job.pictures,
        model_sha256=job.source.sha256,
        method=job.method,
        progress=job.told("observing activations", len(job.pictures)),
    )


def _observe_batches(job: _Job, plan: Plan, batches: Sequence[FloatArray]) -> Mapping[str, Histogram]:
    named = ((f"picture {number}", batch) for number, batch in enumerate(batches, start=1))
    return collect_histograms(job.graph, plan.tensors, named)


def _choose(
    job: _Job,
    plan: Plan,
    recipe: Recipe,
    reference: Reference,
    ranking: Sequence[str],
    max_drop: float | None,
) -> tuple[_Candidate, tuple[BudgetStep, ...]]:
    """What holds the budget, or the whole plan where there is none, and the tries that it took."""

    def attempt(returned: Sequence[str]) -> _Candidate:
        tried = plan.without(dict.fromkeys(returned, f"INT8 here does not fit the budget of {max_drop} points"))
        graph, fp32_nodes = recipe.make(tried)
        told = job.told(f"labelling with {len(plan.layers) - len(returned)} layers in INT8", len(reference.sources))
        return _Candidate(tried, graph, fp32_nodes, reference.compare(graph, progress=told))

    return (attempt(()), ()) if max_drop is None else hold_budget(ranking, attempt, max_drop)


def _verify(
    job: _Job,
    candidate: _Candidate,
    batches: Sequence[FloatArray],
    max_drop: float | None,
    sensitivity: Mapping[str, Sensitivity],
) -> Verification:
    """Compare logits on a few pictures and at the sizes of a dynamic graph; labels were compared on all pictures."""
    accuracy = candidate.comparison.accuracy
    least = TOLERANCES["int8"].min_agreement
    check = compare(
        OnnxSession(candidate.graph.SerializeToString(), name=INT8_FILE).run,
        open_reference(job.bundle, precision="fp32").infer,
        [*batches, *probe_inputs(job.bundle.manifest.input)],
        artifact=INT8_FILE,
        against=f"{job.source.file} in onnxruntime (CPU)",
    )
    if check.max_abs == float("inf"):
        raise CalibrationError(f"the INT8 graph answers NaN or infinities on an input {list(check.inputs[-1])}")
    if max_drop is None and accuracy.agreement < least:
        raise CalibrationError(
            f"only {accuracy.agreement:.2%} of the pixels get the label that they get in FP32; expected at least "
            f"{least:.0%}. Nothing was written. Most sensitive: {', '.join(rank_layers(sensitivity)[:3])}. Keep those "
            "(--keep), state a budget (--max-drop), or try another method or other pictures."
        )
    scored = accuracy.fp32 is not None and accuracy.int8 is not None
    return dataclasses.replace(
        check,
        argmax_agreement=accuracy.agreement,
        miou_delta=-accuracy.drop / 100 if scored else None,
        passed=True,
    )


def _write(
    job: _Job,
    candidate: _Candidate,
    ranges: Calibration,
    verification: Verification,
    report: QuantizationReport,
) -> None:
    files = {
        INT8_FILE: candidate.graph.SerializeToString(),
        CALIBRATION_FILE: ranges.to_json().encode(),
        TEXT_FILE: render_text(report).encode() + b"\n",
        HTML_FILE: render_html(report).encode(),
    }
    provenance = {
        "from": job.source.sha256,
        "method": report.method,
        "images": report.images,
        "data_sha256": report.data_sha256,
        "int8_layers": sum(layer.reason is None for layer in report.layers),
        "kept_layers": {layer.name: layer.reason for layer in report.layers if layer.reason},
        "rest": report.rest,
        "fp32_nodes": {node.name: node.reason for node in candidate.fp32_nodes},
    }
    with extend_bundle(job.bundle) as staged:
        for name, data in files.items():
            staged.write(name, data)
        artifact = staged.artifact(INT8_FILE, kind="onnx", precision="int8", provenance=provenance)
        staged.write_manifest(job.bundle.manifest.with_artifact(artifact, verification))
