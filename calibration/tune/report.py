"""Results of a search, for people and programs; text and page are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...arrays import Float64Array, Labels
from ...manifest import ClassInfo, CrfFit
from ...runtime.metrics import Scores
from ..report.model import SkippedImage
from .candidate import Candidate, Standing
from .search import Trial


@dataclass(frozen=True, eq=False)
class Sample:
    """A held-out image.

    Attributes:
        title: name of its file.
        image: [H, W, 3] uint8 RGB.
        without: labels [H, W] without a CRF.
        after: labels [H, W] with the parameters that were found.
        truth: labels [H, W] of the mask; 0 on void.
        valid: [H, W] bool, false on void.
        gain: points of pixel accuracy that the CRF gains on it.
    """

    title: str
    image: NDArray[np.uint8]
    without: Labels
    after: Labels
    truth: Labels
    valid: NDArray[np.bool_]
    gain: float


@dataclass(frozen=True)
class TimedIterations:
    """The parameters that were found with another number of iterations, on the images that were searched on.

    Attributes:
        standing: how they stand.
        seconds: median of processor seconds of an image on one thread, its lattices included.
    """

    standing: Standing
    seconds: float


@dataclass(frozen=True, eq=False)
class TuningReport:
    """Result of `tune`.

    Attributes:
        name: of the bundle.
        created_by: version of atrous.
        classes: names and colours.
        fit: what was searched on, and scores on the held-out images.
        before: the CRF that the bundle had.
        after: the CRF that was found.
        written: whether the bundle has it now.
        reason: why it is no better, or breaks the limit of harm, on the held-out images; None where it is better.
        searched: how the found CRF stands on the images that were searched on.
        before_held_out, after_held_out: how both CRFs stand on the held-out images.
        iou_without, iou_before, iou_after: [C] IoU of the classes on the held-out images; NaN where a class is in no
            mask there.
        scored: [C] bool, classes that are in a mask of the held-out images.
        trials: all that was tried, in order.
        iterations: other numbers of iterations.
        scores: of the labels without a CRF, over all images.
        samples: held-out images, those on which most changed first.
        skipped: pairs with an unreadable file.
        seconds: duration of the search, what an interrupted one took before not included.
        cpu_seconds: seconds of all cores that the process took.
        versions: package → version.
    """

    name: str
    created_by: str
    classes: tuple[ClassInfo, ...]
    fit: CrfFit
    before: Candidate
    after: Candidate
    written: bool
    reason: str | None
    searched: Standing
    before_held_out: Standing
    after_held_out: Standing
    iou_without: Float64Array
    iou_before: Float64Array
    iou_after: Float64Array
    scored: NDArray[np.bool_]
    trials: tuple[Trial, ...]
    iterations: tuple[TimedIterations, ...]
    scores: Scores
    samples: tuple[Sample, ...]
    skipped: tuple[SkippedImage, ...]
    seconds: float
    cpu_seconds: float
    versions: Mapping[str, str]
