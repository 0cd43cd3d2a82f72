"""Measurements of a search, and the report that they become."""

from __future__ import annotations

import importlib.metadata
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from ..._version import __version__
from ...arrays import Float64Array
from ...bundle import Bundle
from ...manifest import CrfFit
from ...runtime.metrics import IntArray
from .areas import class_iou, mean_score
from .candidate import Candidate, Standing
from .images import Known, TuningImages
from .report import Sample, TimedIterations, TuningReport
from .scenes import Scenes
from .score import Scorer
from .search import ITERATIONS, Found

#: Packages that computed the numbers.
_PACKAGES: Final = ("numpy", "onnxruntime")
_TIMED_IMAGES: Final = 3
_SAMPLES: Final = 4


@dataclass(frozen=True, eq=False)
class Measured:
    """Measurements of one search.

    Attributes:
        after: what the search found, or what was learned from there.
        counts: counts [N, R, C] of the held-out images without a CRF, with the bundle's own, and with `after`.
    """

    data: TuningImages
    found: Found
    before: Candidate
    after: Candidate
    counts: Mapping[Candidate | None, IntArray]
    scorer: Scorer

    def score(self, candidate: Candidate | None) -> float:
        """Score on the held-out images, 0–1."""
        scored = self.scorer.scored(self.counts[None])
        return float(mean_score(self.scorer.scores(self.counts[candidate]), scored))

    def stand(self, candidate: Candidate) -> Standing:
        """Standing of a candidate on the held-out images."""
        return self.scorer.stand(candidate, self.counts[candidate], self.counts[None])

    def stand_searched(self) -> Standing:
        """Standing of the found CRF on the images that were searched on."""
        counts = self.scorer.count([None, self.after], self.data.searched)
        return self.scorer.stand(self.after, counts[self.after], counts[None])

    def interval(self, seed: int) -> tuple[float, float]:
        """95 % interval of the gain of the found CRF on the held-out images, in points."""
        return self.scorer.interval(self.counts[self.after], self.counts[None], seed)

    def iou(self, candidate: Candidate | None) -> Float64Array:
        """IoU [C] on the held-out images; NaN for classes that are in no mask there."""
        return np.where(self.scorer.scored(self.counts[None]), class_iou(self.counts[candidate]), np.nan)

    def objection(self, no_harm: float) -> str | None:
        """Why the found CRF is not better on the held-out images; None where it is."""
        after, before = self.stand(self.after), self.stand(self.before)
        if not after.gain > 0:
            return "no parameters were better than no CRF on the held-out images"
        if not after.gain > before.gain and before.harm <= no_harm:
            return "the parameters that the bundle has are as good on the held-out images"
        if after.harm > no_harm:
            return (
                f"on the held-out images a class loses {after.harm:.2f} points of IoU against no CRF, more than the "
                f"{no_harm:g} that it may"
            )
        return None


def make_report(
    bundle: Bundle,
    scenes: Scenes,
    measured: Measured,
    fit: CrfFit,
    *,
    reason: str | None,
    written: bool,
    seconds: tuple[float, float],
) -> TuningReport:
    """Assemble the report.

    Args:
        bundle: the bundle before the search.
        scenes: label the samples.
        measured: the measurements.
        fit: what the bundle is to know of them.
        reason: what speaks against the found CRF, or None.
        written: whether the bundle gets it.
        seconds: of wall clock and of all cores.
    """
    found, before, after = measured.found, measured.before, measured.after
    tried = {trial.standing.candidate: trial.standing for trial in found.trials if trial.stage == "iterations"}
    return TuningReport(
        name=bundle.manifest.name,
        created_by=f"atrous {__version__}",
        classes=bundle.manifest.classes,
        fit=fit,
        before=before,
        after=after,
        written=written,
        reason=reason,
        searched=measured.stand_searched(),
        before_held_out=measured.stand(before),
        after_held_out=measured.stand(after),
        iou_without=measured.iou(None),
        iou_before=measured.iou(before),
        iou_after=measured.iou(after),
        scored=measured.scorer.scored(measured.counts[None]),
        trials=found.trials,
        iterations=_time(scenes, measured, tried),
        scores=measured.data.scores,
        samples=_samples(scenes, measured),
        skipped=measured.data.skipped,
        seconds=seconds[0],
        cpu_seconds=seconds[1],
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def _time(
    scenes: Scenes, measured: Measured, tried: Mapping[Candidate | None, Standing]
) -> tuple[TimedIterations, ...]:
    """Time each number of iterations on a few images, one after the other."""
    candidates = [replace(measured.found.best, iterations=count) for count in ITERATIONS]
    runs = [scenes.time(pair, digest, candidates) for pair, digest in measured.data.searched[:_TIMED_IMAGES]]
    medians = [statistics.median(each) for each in zip(*runs, strict=True)]
    return tuple(TimedIterations(tried[each], seconds) for each, seconds in zip(candidates, medians, strict=True))


def _samples(scenes: Scenes, measured: Measured) -> tuple[Sample, ...]:
    """Held-out images: where the CRF gained most, and where it lost most."""
    accuracy = {each: _accuracy(measured.counts[each]) for each in (None, measured.after)}
    gains = accuracy[measured.after] - accuracy[None]
    order = [int(index) for index in np.argsort(gains, kind="stable")]
    chosen = dict.fromkeys([*order[: -_SAMPLES // 2 - 1 : -1], *order[: _SAMPLES // 2]])
    return tuple(
        _sample(scenes, measured.data.held_out[index], measured.after, 100 * float(gains[index]))
        for index in chosen
        if not math.isnan(gains[index])
    )


def _sample(scenes: Scenes, image: Known, candidate: Candidate, gain: float) -> Sample:
    pair, digest = image
    scene = scenes.load(pair, digest)
    return Sample(
        title=Path(pair.image).name,
        image=scene.picture,
        without=scene.labels,
        after=scenes.label(scene, candidate),
        truth=scene.truth.ids,
        valid=scene.truth.valid,
        gain=gain,
    )


def _accuracy(counts: IntArray) -> Float64Array:
    """Pixel accuracy [N] of each image."""
    with np.errstate(invalid="ignore"):
        return np.asarray(counts[:, 0].sum(-1) / counts[:, 2].sum(-1))
