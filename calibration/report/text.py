"""What a quantization did and what it cost, in a few lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from .model import LayerResult, QuantizationReport

_METRIC_NAMES: Final = {"miou": "mean IoU", "agreement": "agreement with FP32"}
_MAX_LISTED: Final = 5


def render_text(report: QuantizationReport) -> str:
    """The report as text for a terminal: what was lost, what stays higher and why, what was skipped."""
    return "\n".join(_lines(report))


def headline(report: QuantizationReport) -> str:
    """What INT8 costs, in one sentence."""
    accuracy = report.accuracy
    name = _METRIC_NAMES[accuracy.metric]
    over = f"{accuracy.pictures} picture{_plural(accuracy.pictures)}"
    verb = "loses" if accuracy.drop >= 0 else "gains"
    change = f"INT8 {verb} {abs(accuracy.drop):.2f} points of {name}"
    if accuracy.fp32 is not None and accuracy.int8 is not None:
        change += f": {percent(accuracy.fp32.miou)} → {percent(accuracy.int8.miou)}"
    return f"{change}, over {over}."


def budget_outcome(report: QuantizationReport) -> str | None:
    """What it took to hold the budget, in one sentence; None without one."""
    if report.max_drop is None:
        return None
    returned = min(len(step.returned) for step in report.steps if step.drop <= report.max_drop)
    effort = f"with {returned} layer{_plural(returned)} returned to {report.rest.upper()}" if returned else "at once"
    return f"The budget of {report.max_drop:g} points holds {effort}."


def percent(share: float, digits: int = 2) -> str:
    """A share between 0 and 1 in percent; a dash where there was nothing to measure."""
    return "–" if math.isnan(share) else f"{share * 100:.{digits}f} %"


def number(value: float | None) -> str:
    """Percentage points; a dash where they were not measured."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def change(value: float) -> str:
    """Percentage points with their sign; a dash where there was nothing to measure."""
    plain = number(value)
    return plain if plain in ("–", "0.00") or plain.startswith("−") else f"+{plain}"


def decibels(value: float | None) -> str:
    """A ratio in dB; a dash where it was not measured."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.1f}"


def megabytes(count: int) -> str:
    """Bytes as MB of 10⁶."""
    return f"{count / 1e6:.1f} MB"


def most_sensitive(report: QuantizationReport, count: int) -> list[LayerResult]:
    """The layers that cost most when they alone are INT8, worst first."""
    measured = [layer for layer in report.layers if layer.alone_drop is not None]
    return sorted(measured, key=lambda layer: -(layer.alone_drop or 0.0))[:count]


def _lines(report: QuantizationReport) -> Iterator[str]:
    kept = [layer for layer in report.layers if layer.reason]
    yield headline(report)
    yield f"{percent(report.accuracy.agreement, 3)} of the pixels are labelled as in FP32."
    if outcome := budget_outcome(report):
        yield outcome
    yield (
        f"{len(report.layers) - len(kept)} of {len(report.layers)} layers are INT8; the graph takes "
        f"{megabytes(report.int8_bytes)} (FP32: {megabytes(report.fp32_bytes)})."
    )
    source = "an earlier calibration on" if report.reused else "observing"
    yield (
        f"Thresholds: {report.method}, from {source} {report.images} picture{_plural(report.images)} "
        f"(seed {report.seed}). All in {report.seconds:.0f} s."
    )
    if kept:
        yield f"In {report.rest.upper()}:"
        yield from (f"  {layer.name}: {layer.reason}" for layer in kept)
    if worst := most_sensitive(report, _MAX_LISTED):
        yield "Most sensitive (points of agreement lost when INT8 alone):"
        yield from (f"  {layer.name}: {number(layer.alone_drop)}" for layer in worst)
    if report.skipped:
        yield f"{len(report.skipped)} picture{_plural(len(report.skipped))} skipped:"
        yield from (f"  {each.name}: {each.reason}" for each in report.skipped)


def _plural(count: int) -> str:
    return "" if count == 1 else "s"
