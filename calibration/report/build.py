"""Builds the report of a quantization from its measurements."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import onnx

from ..._version import __version__
from ...bundle import Bundle
from ...exporter.module_names import module_names
from ...manifest import Artifact
from ..accuracy import Comparison
from ..calibration import Calibration
from ..histogram import Histogram
from ..plan import QuantizationPlan
from ..qdq import shared_amax
from ..sensitivity import Sensitivity
from ..thresholds import sqnr_db
from .model import BudgetStep, LayerResult, QuantizationReport, Sample, SkippedImage, TensorResult

#: Packages that computed the numbers.
_PACKAGES: Final = ("numpy", "onnx", "onnx-ir", "onnxruntime")


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measurements of one quantization.

    Attributes:
        histograms: histogram of each tensor of the plan.
        reused: `calibration` was reused, so `histograms` cover only the images of the sensitivity analysis.
        plan: plan of the final graph.
        sensitivity: sensitivity of each layer that was in INT8 before the budget was applied.
        comparison: final graph against FP32 on all images.
        rest: precision of the nodes that are not INT8.
    """

    calibration: Calibration
    histograms: Mapping[str, Histogram]
    reused: bool
    plan: QuantizationPlan
    sensitivity: Mapping[str, Sensitivity]
    sensitivity_images: int
    steps: tuple[BudgetStep, ...]
    max_drop: float | None
    comparison: Comparison
    samples: tuple[Sample, ...]
    skipped: tuple[SkippedImage, ...]
    seed: int
    rest: Literal["fp16", "fp32"]


def make_report(
    bundle: Bundle, source: Artifact, graph: onnx.ModelProto, measured: Measurements, *, seconds: float
) -> QuantizationReport:
    """Assemble the report.

    Args:
        bundle: the bundle before the quantization.
        source: artifact of its FP32 graph.
        graph: the INT8 graph.
        measured: the measurements.
        seconds: total duration.
    """
    return QuantizationReport(
        name=bundle.manifest.name,
        created_by=f"atrous {__version__}",
        classes=bundle.manifest.classes,
        method=measured.calibration.method,
        seed=measured.seed,
        images=measured.calibration.images,
        reused=measured.reused,
        skipped=measured.skipped,
        model_sha256=source.sha256,
        data_sha256=measured.calibration.data_sha256,
        rest=measured.rest,
        fp32_bytes=source.bytes,
        int8_bytes=graph.ByteSize(),
        accuracy=measured.comparison.accuracy,
        sensitivity_images=measured.sensitivity_images,
        tensors=_tensors(measured),
        layers=_layers(graph, measured),
        max_drop=measured.max_drop,
        steps=measured.steps,
        samples=measured.samples,
        seconds=seconds,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def _tensors(measured: Measurements) -> tuple[TensorResult, ...]:
    shared = shared_amax(measured.plan, measured.calibration.amax)
    return tuple(
        TensorResult(
            name=name,
            amax=amax,
            max_abs=measured.calibration.ranges[name].max_abs,
            sqnr_db=sqnr_db(measured.histograms[name], amax),
            counts=measured.histograms[name].counts,
            bin_width=measured.histograms[name].bin_width,
        )
        for name, amax in shared.items()
    )


def _layers(graph: onnx.ModelProto, measured: Measurements) -> tuple[LayerResult, ...]:
    """Results of all layers, in the order of the graph."""
    reasons = {each.name: each.reason for each in measured.plan.kept}
    ops = {layer.name: layer.op for layer in measured.plan.layers} | {kept.name: kept.op for kept in measured.plan.kept}
    modules = module_names(graph)
    results = []
    for name in (node.name or node.output[0] for node in graph.graph.node):
        if name not in ops:
            continue
        own = measured.sensitivity.get(name)
        results.append(
            LayerResult(
                name,
                ops[name],
                sqnr_db=own.sqnr_db if own else None,
                alone_drop=own.alone_drop if own else None,
                kept_gain=own.kept_gain if own else None,
                reason=reasons.get(name),
                module=modules.get(name),
            )
        )
    return tuple(results)
