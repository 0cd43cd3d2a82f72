"""INT8 quantization of a bundle's FP32 graph, with a report of the accuracy lost."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from ..arguments import check_arguments
from ..arrays import FloatArray
from ..bundle import Bundle, extend_bundle
from ..errors import CalibrationError, EngineError
from ..exporter.module_names import module_names
from ..exporter.name_patterns import kept_by_pattern
from ..exporter.passes import KeptNode, run_passes
from ..exporter.verify import TOLERANCES, Named, covering_probes, prove
from ..manifest import Artifact, Verification
from ..runtime.backends import open_reference
from ..runtime.backends.onnxruntime import OnnxSession
from ..runtime.image import ImageSource
from .accuracy import Comparison, Reference
from .activation_histograms import collect_histograms
from .budget import check_max_drop, hold_budget
from .calibrate import choose_ranges, known_ranges
from .calibration import Calibration
from .histogram import Histogram
from .images import CalibrationImages
from .int8_graph import GraphQuantizer, fp16_misfits
from .options import DEFAULT_METHOD, Method, QuantizeOptions
from .plan import QuantizationPlan, plan_quantization
from .qdq import MIN_OPSET, opset_of, usable_plan
from .report.build import Measurements, make_report
from .report.html import render_html
from .report.model import BudgetStep, QuantizationReport
from .report.text import render_text
from .sensitivity import Sensitivity, measure_sensitivity, rank_layers, sensitivity_batches

INT8_FILE: Final = "model.int8.onnx"
CALIBRATION_FILE: Final = "calibration.json"
HTML_FILE: Final = "reports/int8.html"
TEXT_FILE: Final = "reports/int8.txt"
#: Called with the name of the current step, the number of items done, and their total.
QuantizationProgress = Callable[[str, int, int], None]


@check_arguments
def quantize(
    bundle: Bundle,
    *,
    images: str | os.PathLike[str] | Sequence[ImageSource],
    masks: str | os.PathLike[str] | None = None,
    method: Method = DEFAULT_METHOD,
    max_drop: float | None = None,
    keep: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    progress: QuantizationProgress = lambda *_: None,
) -> tuple[Bundle, QuantizationReport]:
    """Add `model.int8.onnx`, quantized from the FP32 graph and compared with it; inputs and outputs stay FP32.

    Activations are observed one image at a time, and a range is chosen for each. Then the sensitivity of every layer is
    measured, and both graphs label all images (`docs/quantization.md`). The ranges are saved as `calibration.json` and
    reused when the same model is quantized again with the same images and method; the report goes to `reports/`. Files
    of an earlier call are replaced. If anything fails, or on Ctrl-C, the bundle is unchanged.

    Args:
        bundle: a bundle with an FP32 graph.
        images: a folder or a sequence of images like those in production; a hundred different ones are plenty. They
            need no masks.
        masks: a folder with a mask `NAME.png` for each image `NAME.*`, or as `options.mask_rules` says. The drop is
            then in points of mean IoU; without masks, in points of agreement: the share of pixels with the same label
            as in FP32.
        method: chooses the ranges: `minmax`, `percentile`, `entropy` or `mse`.
        max_drop: budget in points; the most sensitive layers leave INT8 until it holds.
        keep: patterns of layers to keep out of INT8: names, or paths of PyTorch modules (`backbone.layer3.*`).
        options: number of images, void ids in the masks, known ranges, random seed.
        progress: see `QuantizationProgress`.

    Returns:
        The reopened bundle, and the report.

    Raises:
        CalibrationError: the images, their activations, a pattern or the calibration are invalid; the graph is already
            quantized, or has nothing to quantize; `max_drop` cannot be held; or, without `max_drop`, more than a tenth
            of the pixels change their label.
        EvaluationError: a mask is missing or does not fit its image; or a class is in no mask while much is void.
        EngineError: the bundle has no FP32 graph, or ONNX Runtime fails.
        BundleError: a file was changed, or the bundle cannot be written.
        ShapeError: an input array is not an image.
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
        job.images.readable,
        masks=None if masks is None else Path(masks),
        ignore=options.ignore,
        rules=options.mask_rules,
        progress=job.counter("labelling in FP32", len(job.images.readable)),
    )
    manifest = job.bundle.manifest
    batches = sensitivity_batches(reference.sources, manifest.input)
    count = job.counter("measuring layers", len(plan.layers))
    sensitivity = measure_sensitivity(job.graph, plan, ranges.amax, batches, manifest.output, progress=count)
    quantizer = GraphQuantizer(job.graph, ranges.amax, fp16_misfits(job.graph, reference.sources, manifest.input))
    chosen, steps = _choose(job, plan, quantizer, reference, rank_layers(sensitivity), max_drop)
    verification = _verify(job, chosen, batches, max_drop, sensitivity)
    measurements = Measurements(
        calibration=ranges,
        histograms=histograms or _observe_batches(job, chosen.plan, batches),
        reused=histograms is None,
        plan=chosen.plan,
        sensitivity=sensitivity,
        sensitivity_images=len(batches),
        steps=steps,
        max_drop=max_drop,
        comparison=chosen.comparison,
        samples=reference.samples(chosen.graph, chosen.comparison),
        skipped=(*job.images.skipped, *reference.skipped),
        seed=options.seed,
        rest=quantizer.rest,
    )
    report = make_report(job.bundle, job.source, chosen.graph, measurements, seconds=time.perf_counter() - job.started)
    _write(job, chosen, ranges, verification, report)
    return Bundle.open(job.bundle.path), report


@dataclass(frozen=True, eq=False)
class _Job:
    """Inputs of one quantization.

    Attributes:
        source: artifact of the FP32 graph.
        graph: the FP32 graph with inferred types.
        whole: plan of every layer that can be INT8; ranges are chosen for all of them.
        plan: `whole` without the layers that the user keeps.
        started: start time by `time.perf_counter`, in seconds.
    """

    bundle: Bundle
    source: Artifact
    graph: onnx.ModelProto
    whole: QuantizationPlan
    plan: QuantizationPlan
    images: CalibrationImages
    method: Method
    progress: QuantizationProgress
    started: float

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """Callback that reports the progress of one step."""
        return lambda done: self.progress(what, done, total)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A plan, its graph, and the accuracy of the graph on all images."""

    plan: QuantizationPlan
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
    progress: QuantizationProgress,
) -> _Job:
    """Validate everything that can be validated before the first inference."""
    started = time.perf_counter()
    bundle = bundle.reopen()
    source = bundle.find(kind="onnx", precision="fp32")
    if source is None:
        raise EngineError(f"{bundle.path} has no FP32 graph to quantize; export or pack one")
    chosen = CalibrationImages(images, bundle.manifest.input, max_images=options.max_images, seed=options.seed)
    graph = run_passes(onnx.load_from_string(bundle.read(source)), [])
    opset = opset_of(graph)
    if opset < MIN_OPSET:
        raise CalibrationError(
            f"{source.file} has ONNX opset {opset}; INT8 with a scale for each channel needs {MIN_OPSET} or newer. "
            "Export the model again with a newer opset, or convert the graph with onnx.version_converter, and pack it."
        )
    whole = plan_quantization(graph)
    names = [*(layer.name for layer in whole.layers), *(node.name for node in whole.kept)]
    wanted = kept_by_pattern(names, keep, modules=module_names(graph), kind="layer", error=CalibrationError)
    plan = _require_layers(whole.without(wanted))
    return _Job(bundle, source, graph, whole, plan, chosen, method, progress, started)


def _require_layers(plan: QuantizationPlan) -> QuantizationPlan:
    if plan.layers:
        return plan
    reasons = "; ".join(f"{each.name}: {each.reason}" for each in plan.kept[:3])
    raise CalibrationError(
        f"no layer can be quantized: {reasons or 'the graph has no convolution or matrix product'}"
        f"{'; …' if len(plan.kept) > 3 else ''}"
    )


def _calibrate(job: _Job, file: Path | None) -> tuple[Calibration, Mapping[str, Histogram] | None]:
    """Ranges and histograms; the histograms are None if the ranges were reused."""
    known = known_ranges(
        file or job.bundle.path / CALIBRATION_FILE,
        job.whole.tensors,
        job.images,
        model_sha256=job.source.sha256,
        method=job.method,
        required=file is not None,
    )
    if known:
        return known, None
    return choose_ranges(
        job.graph,
        job.whole.tensors,
        job.images,
        model_sha256=job.source.sha256,
        method=job.method,
        progress=job.counter("observing activations", len(job.images)),
    )


def _observe_batches(job: _Job, plan: QuantizationPlan, batches: Sequence[FloatArray]) -> Mapping[str, Histogram]:
    named = ((f"image {number}", batch) for number, batch in enumerate(batches, start=1))
    return collect_histograms(job.graph, plan.tensors, named)


def _choose(
    job: _Job,
    plan: QuantizationPlan,
    quantizer: GraphQuantizer,
    reference: Reference,
    ranking: Sequence[str],
    max_drop: float | None,
) -> tuple[_Candidate, tuple[BudgetStep, ...]]:
    """Choose the candidate that holds the budget, or the whole plan without one; also returns the attempts."""

    def attempt(returned: Sequence[str]) -> _Candidate:
        tried = plan.without(dict.fromkeys(returned, f"removed to hold the budget of {max_drop} points"))
        graph, fp32_nodes = quantizer.make(tried)
        count = job.counter(f"labelling with {len(plan.layers) - len(returned)} layers in INT8", len(reference.sources))
        return _Candidate(tried, graph, fp32_nodes, reference.compare(graph, progress=count))

    return (attempt(()), ()) if max_drop is None else hold_budget(ranking, attempt, max_drop)


def _verify(
    job: _Job,
    candidate: _Candidate,
    batches: Sequence[FloatArray],
    max_drop: float | None,
    sensitivity: Mapping[str, Sensitivity],
) -> Verification:
    """Compare logits on a few images and over all that the graph takes; labels have been compared on all images."""
    accuracy = candidate.comparison.accuracy
    min_agreement = TOLERANCES["int8"].min_agreement
    inputs = job.bundle.manifest.input
    (check,) = prove(
        [Named(INT8_FILE, OnnxSession(candidate.graph.SerializeToString(), name=INT8_FILE).run)],
        Named(f"{job.source.file} in onnxruntime (CPU)", open_reference(job.bundle, precision="fp32").infer),
        inputs,
        tolerance=TOLERANCES["int8"],
        given=batches,
        probes=covering_probes(inputs, noise=False),
        channels=job.bundle.manifest.output.channels,
    )
    if check.max_abs == float("inf"):
        shapes = ", ".join(str(list(shape)) for shape in check.failed[:8])
        raise CalibrationError(f"the INT8 graph returns NaN, infinity or another shape for an input {shapes}")
    if max_drop is None and accuracy.agreement < min_agreement:
        raise CalibrationError(
            f"only {accuracy.agreement:.2%} of the pixels have the same label as in FP32; expected at least "
            f"{min_agreement:.0%}. Nothing was written. Most sensitive: {', '.join(rank_layers(sensitivity)[:3])}. "
            "Keep these out of INT8 (--keep), set a budget (--max-drop), or try another method or other images."
        )
    scored = accuracy.fp32 is not None and accuracy.int8 is not None
    return dataclasses.replace(
        check,
        argmax_agreement=accuracy.agreement,
        miou_delta=-accuracy.drop / 100 if scored else None,
        passed=not check.failed,
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
    with extend_bundle(job.bundle, source=job.source) as staged:
        for name, data in files.items():
            staged.write(name, data)
        artifact = staged.artifact(INT8_FILE, kind="onnx", precision="int8", provenance=provenance)
        staged.add(artifact, verification)
