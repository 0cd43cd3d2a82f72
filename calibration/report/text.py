"""Report of a quantization as a few lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from ...runtime.masks import describe_truth
from .model import LayerResult, QuantizationReport

_METRIC_NAMES: Final = {"miou": "mean IoU", "agreement": "agreement with FP32"}
_MAX_LISTED: Final = 5


def render_text(report: QuantizationReport) -> str:
    """Render the report for a terminal: accuracy lost, layers kept and why, images skipped."""
    return "\n".join(_lines(report))


def headline(report: QuantizationReport) -> str:
    """One sentence on the accuracy of INT8."""
    accuracy = report.accuracy
    name = _METRIC_NAMES[accuracy.metric]
    over = f"{accuracy.images} image{_plural(accuracy.images)}"
    verb = "loses" if accuracy.drop >= 0 else "gains"
    change = f"INT8 {verb} {abs(accuracy.drop):.2f} points of {name}"
    if accuracy.fp32 is not None and accuracy.int8 is not None:
        change += f": {percent(accuracy.fp32.miou)} → {percent(accuracy.int8.miou)}"
    return f"{change}, over {over}."


def budget_outcome(report: QuantizationReport) -> str | None:
    """One sentence on how the budget was held; None without a budget."""
    if report.max_drop is None:
        return None
    returned = min(len(step.returned) for step in report.steps if step.drop <= report.max_drop)
    effort = (
        f"with {returned} layer{_plural(returned)} kept in {report.rest.upper()}"
        if returned
        else "with all layers in INT8"
    )
    return f"The budget of {report.max_drop:g} points holds {effort}."


def masks_held(report: QuantizationReport) -> str | None:
    """One sentence on void, and on classes that no mask holds; None without masks."""
    scores = report.accuracy.fp32
    return f"Masks: {describe_truth(scores, report.classes)}." if scores else None


def percent(share: float, digits: int = 2) -> str:
    """Format a share (0–1) in percent; a dash for NaN."""
    return "–" if math.isnan(share) else f"{share * 100:.{digits}f} %"


def number(value: float | None) -> str:
    """Format percentage points; a dash if not measured."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def change(value: float) -> str:
    """Format percentage points with their sign; a dash for NaN."""
    plain = number(value)
    return plain if plain in ("–", "0.00") or plain.startswith("−") else f"+{plain}"


def decibels(value: float | None) -> str:
    """Format a ratio in dB; a dash if not measured."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.1f}"


def megabytes(count: int) -> str:
    """Format bytes in MB (10⁶ bytes)."""
    return f"{count / 1e6:.1f} MB"


def most_sensitive(report: QuantizationReport, count: int) -> list[LayerResult]:
    """Layers with the largest drop when only they are INT8, worst first."""
    measured = [layer for layer in report.layers if layer.alone_drop is not None]
    return sorted(measured, key=lambda layer: -(layer.alone_drop or 0.0))[:count]


def _lines(report: QuantizationReport) -> Iterator[str]:
    kept = [layer for layer in report.layers if layer.reason]
    yield headline(report)
    yield f"{percent(report.accuracy.agreement, 3)} of the pixels have the same label as in FP32."
    if truth := masks_held(report):
        yield truth
    if outcome := budget_outcome(report):
        yield outcome
    yield (
        f"{len(report.layers) - len(kept)} of {len(report.layers)} layers are INT8; the graph takes "
        f"{megabytes(report.int8_bytes)} (FP32: {megabytes(report.fp32_bytes)})."
    )
    source = "an earlier calibration on" if report.reused else "observing"
    yield (
        f"Thresholds: {report.method}, from {source} {report.images} image{_plural(report.images)} "
        f"(seed {report.seed}). Total: {report.seconds:.0f} s."
    )
    if kept:
        yield f"Kept in {report.rest.upper()}:"
        yield from (f"  {layer.title}: {layer.reason}" for layer in kept)
    if worst := most_sensitive(report, _MAX_LISTED):
        yield "Most sensitive (points of agreement lost with only this layer in INT8):"
        yield from (f"  {layer.title}: {number(layer.alone_drop)}" for layer in worst)
    if report.skipped:
        yield f"{len(report.skipped)} image{_plural(len(report.skipped))} skipped:"
        yield from (f"  {each.name}: {each.reason}" for each in report.skipped)


def _plural(count: int) -> str:
    return "" if count == 1 else "s"
