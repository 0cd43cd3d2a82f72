"""From what a quantization went through to what its report shows."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import onnx

from .._version import __version__
from ..bundle import Bundle
from ..manifest import Artifact
from .accuracy import Comparison
from .cache import Calibration
from .histogram import Histogram
from .plan import Plan
from .qdq import shared_amax
from .results import BudgetStep, LayerResult, QuantizationReport, Sample, SkippedPicture, TensorResult
from .sensitivity import Sensitivity
from .thresholds import sqnr_db

#: What computed the numbers.
_PACKAGES: Final = ("numpy", "onnx", "onnx-ir", "onnxruntime")


@dataclass(frozen=True, eq=False)
class Findings:
    """What `quantize` found out.

    Attributes:
        histograms: at least those of the plan's tensors.
        reused: whether `calibration` was known, and `histograms` are only of the pictures for the sensitivity.
        plan: of the finished graph.
        sensitivity: of the layers that were in INT8 before the budget.
        comparison: the finished graph on all pictures.
        rest: what computes what is not INT8.
    """

    calibration: Calibration
    histograms: Mapping[str, Histogram]
    reused: bool
    plan: Plan
    sensitivity: Mapping[str, Sensitivity]
    sensitivity_pictures: int
    steps: tuple[BudgetStep, ...]
    max_drop: float | None
    comparison: Comparison
    samples: tuple[Sample, ...]
    skipped: tuple[SkippedPicture, ...]
    seed: int
    rest: Literal["fp16", "fp32"]


def make_report(
    bundle: Bundle, source: Artifact, graph: onnx.ModelProto, found: Findings, *, seconds: float
) -> QuantizationReport:
    """Everything that the report shows.

    Args:
        bundle: as it was.
        source: its FP32 graph.
        graph: the INT8 graph.
        found: the rest.
        seconds: that it all took.
    """
    return QuantizationReport(
        name=bundle.manifest.name,
        created_by=f"atrous {__version__}",
        classes=bundle.manifest.classes,
        method=found.calibration.method,
        seed=found.seed,
        images=found.calibration.images,
        reused=found.reused,
        skipped=found.skipped,
        model_sha256=source.sha256,
        data_sha256=found.calibration.data_sha256,
        rest=found.rest,
        fp32_bytes=source.bytes,
        int8_bytes=graph.ByteSize(),
        accuracy=found.comparison.accuracy,
        sensitivity_pictures=found.sensitivity_pictures,
        tensors=_tensors(found),
        layers=_layers(graph, found),
        max_drop=found.max_drop,
        steps=found.steps,
        samples=found.samples,
        seconds=seconds,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def _tensors(found: Findings) -> tuple[TensorResult, ...]:
    shared = shared_amax(found.plan, found.calibration.amax)
    return tuple(
        TensorResult(
            name=name,
            amax=amax,
            max_abs=found.calibration.ranges[name].max_abs,
            sqnr_db=sqnr_db(found.histograms[name], amax),
            counts=found.histograms[name].counts,
            bin_width=found.histograms[name].bin_width,
        )
        for name, amax in shared.items()
    )


def _layers(graph: onnx.ModelProto, found: Findings) -> tuple[LayerResult, ...]:
    """In the order of the graph."""
    reasons = {each.name: each.reason for each in found.plan.kept}
    ops = {layer.name: layer.op for layer in found.plan.layers} | {kept.name: kept.op for kept in found.plan.kept}
    results = []
    for name in (node.name or node.output[0] for node in graph.graph.node):
        if name not in ops:
            continue
        own = found.sensitivity.get(name)
        results.append(
            LayerResult(
                name,
                ops[name],
                sqnr_db=own.sqnr_db if own else None,
                alone_drop=own.alone_drop if own else None,
                kept_gain=own.kept_gain if own else None,
                reason=reasons.get(name),
            )
        )
    return tuple(results)
