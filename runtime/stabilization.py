"""Frames of a video that agree with the frames before them, and a measure of how much labels flicker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..arrays import FloatArray, Labels, label_type
from ..crf import DenseCRF
from ..errors import EvaluationError
from ..manifest import Manifest
from .channels import refined_labels
from .preprocess import color_image
from .result import Result, unchanged

#: Standard deviation of a colour that stays, in units of 0…255: noise of cameras and of compression.
COLOR_SIGMA: Final = 10.0
#: A colour stays where no channel changes by more.
SAME_COLOR: Final = 8
_FLOOR: Final = 1e-5


def check_share(share: float) -> float:
    """Validate the share of the previous frame; raises `EvaluationError` unless it is at least 0 and below 1."""
    if not 0 <= share < 1:
        raise EvaluationError(f"stabilize is the share of the previous frame: at least 0, below 1; got {share}")
    return share


def stabilized(results: Iterable[Result], manifest: Manifest, crf: DenseCRF | None, share: float) -> Iterator[Result]:
    """Weigh the previous frame's marginals in, where colours agree; then comes the CRF.

    With a = share · exp(−|I_t − I_{t−1}|² / 2σ²) at each pixel, the CRF's unary is −(1 − a) log p_t − a log q_{t−1}:
    p_t are the network's probabilities, q_{t−1} the marginals of the frame before, which carry those before it. A frame
    of another size begins anew.

    Args:
        results: of the network alone, in the order of the frames.
        manifest: describes bands and classes.
        crf: refines the probabilities, or None.
        share: at least 0, below 1.
    """
    bands, channels = manifest.input.bands, manifest.output.channels
    before: tuple[NDArray[np.uint8], FloatArray] | None = None
    for result in results:
        colors, probabilities = color_image(result.image, bands, weighted=True), result.probabilities
        if before is not None and before[1].shape == probabilities.shape:
            probabilities = _blended(probabilities, before[1], share * _agreement(colors, before[0]))
        timings_ms = dict(result.timings_ms)
        if crf is None:
            labels, marginals = _most_probable(probabilities), probabilities
        else:
            labels, marginals = crf.labels_and_marginals(probabilities, colors)
        before = colors, marginals
        labels = refined_labels(labels, marginals, channels)
        yield Result(labels, result.image, manifest.classes, timings_ms, partial(unchanged, marginals), bands)


@dataclass
class Flicker:
    """Tally of the pixels of a video whose colour stays from one frame to the next, and of those whose label does not.

    Attributes:
        frames: that were added.
        still_px: pixels, over all pairs of frames, whose colour stays.
        changed_px: of these, those whose label changes.
    """

    frames: int = 0
    still_px: int = 0
    changed_px: int = 0

    def __post_init__(self) -> None:
        self._before: tuple[NDArray[np.uint8], Labels] | None = None

    @property
    def share(self) -> float:
        """Share of the pixels with a colour that stays whose label changes; NaN where no colour stays."""
        return self.changed_px / self.still_px if self.still_px else float("nan")

    def add(self, result: Result) -> None:
        """Add the next frame; one of another size than the last begins a video of its own."""
        picture, labels = result.picture, result.labels
        if self._before is not None and self._before[1].shape == labels.shape:
            change = np.abs(picture.astype(np.int16) - self._before[0]).max(axis=2)
            still = change <= SAME_COLOR
            self.still_px += int(np.count_nonzero(still))
            self.changed_px += int(np.count_nonzero(still & (labels != self._before[1])))
        self._before = picture, labels
        self.frames += 1


def _agreement(colors: NDArray[np.uint8], before: NDArray[np.uint8]) -> FloatArray:
    """exp(−|ΔI|² / 2σ²) [H, W]."""
    distance: NDArray[Any] = ((colors.astype(np.float32) - before) ** 2).sum(axis=2)
    agreement: FloatArray = np.exp(distance / np.float32(-2 * COLOR_SIGMA**2))
    return agreement


def _blended(probabilities: FloatArray, before: FloatArray, weight: FloatArray) -> FloatArray:
    """p^(1 − w) · q^w, divided by its sum over the classes; [C, H, W]."""
    logs = np.log(np.maximum(probabilities, np.float32(_FLOOR)))
    logs += weight * (np.log(np.maximum(before, np.float32(_FLOOR))) - logs)
    blended: FloatArray = np.exp(logs)
    blended /= blended.sum(axis=0)
    return blended


def _most_probable(probabilities: FloatArray) -> Labels:
    labels: Labels = probabilities.argmax(axis=0).astype(label_type(len(probabilities)))
    return labels
