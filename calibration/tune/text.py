"""Report of a search as a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from ...runtime.masks import describe_truth
from ..report.text import change, number, percent
from .candidate import Candidate
from .report import TuningReport

METRIC_NAMES: Final = {
    "miou": "mean IoU",
    "boundary-f": "mean F-score of boundaries",
    "trimap": "mean IoU near edges",
}


def render_text(report: TuningReport) -> str:
    """Render the report for a terminal."""
    return "\n".join(_lines(report))


def headline(report: TuningReport) -> str:
    """One sentence on what the found CRF is worth."""
    fit = report.fit
    low, high = (change(100 * each) for each in fit.gain_interval)
    return (
        f"{METRIC_NAMES[fit.metric]} {percent(fit.score_without)} without the CRF, {percent(fit.score_before)} with "
        f"the bundle's, {percent(fit.score_after)} with the one found: {change(report.after_held_out.gain)} points "
        f"(95 % interval {low} to {high}) on {_count(fit.held_out, 'held-out image')}."
    )


def outcome(report: TuningReport) -> str:
    """One sentence on whether the bundle was changed, and why not."""
    if report.reason is None:
        return "The bundle has these parameters now."
    if report.written:
        return f"They are in the bundle as demanded, although {report.reason}."
    return f"The bundle was not changed: {report.reason}."


def describe(candidate: Candidate) -> str:
    """Parameters in one line."""
    params = candidate.params
    return (
        f"w_b {params.bilateral_weight:g}, σ_xy {params.bilateral_sigma_xy_px:g} px, σ_rgb "
        f"{params.bilateral_sigma_rgb:g}, w_g {params.gaussian_weight:g}, σ_γ {params.gaussian_sigma_xy_px:g} px, "
        f"temperature {params.unary_temperature:g}, {_count(candidate.iterations, 'iteration')}{_learned(candidate)}"
    )


def class_changes(report: TuningReport) -> str:
    """One sentence on the classes that gain and lose most on the held-out images."""
    changes = 100 * (report.iou_after - report.iou_without)
    scored = [index for index in np.argsort(changes) if report.scored[index]]
    best, worst = scored[-1], scored[0]
    return (
        f"Classes against no CRF: {report.classes[best].name} {change(float(changes[best]))} points of IoU, "
        f"{report.classes[worst].name} {change(float(changes[worst]))}; the limit of harm is "
        f"{number(report.fit.no_harm)}."
    )


def truth_held(report: TuningReport) -> str:
    """One sentence on void, and on classes that no mask holds."""
    return f"Masks: {describe_truth(report.scores, report.classes)}."


def _lines(report: TuningReport) -> Iterator[str]:
    fit = report.fit
    yield headline(report)
    yield outcome(report)
    yield f"Found: {describe(report.after)}."
    yield f"Before: {describe(report.before)}."
    yield class_changes(report)
    yield truth_held(report)
    yield (
        f"Searched on {_count(fit.images, 'image')} (seed {fit.seed}), where it gains "
        f"{change(report.searched.gain)} points; {len({trial.standing.candidate for trial in report.trials})} sets of "
        f"parameters. Total: {report.seconds:.0f} s, {report.cpu_seconds:.0f} s of processor time."
    )
    if report.skipped:
        yield f"{_count(len(report.skipped), 'image')} skipped:"
        yield from (f"  {each.name}: {each.reason}" for each in report.skipped)


def _learned(candidate: Candidate) -> str:
    learned = candidate.compatibility
    if learned is None:
        return ""
    low, high = min(learned.bilateral), max(learned.bilateral)
    return f", with learned costs of pairs of classes and factors of w_b from {low:.2g} to {high:.2g}"


def _count(number_of: int, word: str) -> str:
    return f"{number_of} {word}{'' if number_of == 1 else 's'}"
