"""Agreement of labels with the truth: over all pixels, in bands around label edges, and on the edges.

`count` reduces one image to integers, `Tally` adds images up, `Scores` is what comes out. A class is left out of a
mean where it occurs neither in the truth nor among the labels: its score is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float64Array, Labels
from ..errors import ShapeError

#: Widths of the trimap, in pixels to each side of an edge, as in fig. 8 of arXiv 1606.00915.
MAX_BAND_PX: Final = 40
#: How far a boundary may be off, as a share of the image's diagonal: Csurka et al., BMVC 2013, section 3.
BOUNDARY_TOLERANCE: Final = 0.0075

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Counts:
    """One image in integers.

    Attributes:
        rings: [41, C, C] int64, pixels of class `row` that were labelled `column`, by their distance from the nearest
            edge in the truth: ring r holds r ≤ distance < r + 1 px, the last one all that is further away.
        boundary: [4, C] int64: boundary pixels of the labels that are near one of the truth, all of the labels',
            boundary pixels of the truth that are near one of the labels, all of the truth's.
        void_px: pixels of the truth that are void.
        assumed_void_px: those of them that are void because of the bundle's `ignore_index` alone.
    """

    rings: IntArray
    boundary: IntArray
    void_px: int = 0
    assumed_void_px: int = 0


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores between 0 and 1 over all images; NaN where there was nothing to score.

    Attributes:
        confusion: [C, C] int64, pixels of class `row` that were labelled `column`.
        iou: [C] float64, intersection over union.
        miou: the mean of `iou`.
        pixel_accuracy: share of the pixels with the right label.
        trimap_miou: [40] float64; entry w − 1 is the mean IoU of the w px to each side of an edge: pixels less
            than w px from an edge pixel.
        boundary_f: [C] float64, F-score of the boundary in an image, averaged over the images with that class.
        mean_boundary_f: the mean of `boundary_f`.
        void_share: share of the truth's pixels that are void.
        assumed_void_share: share that is void because of the bundle's `ignore_index` alone.
        absent: classes that are in no truth, without those that are ignored.
    """

    confusion: IntArray
    iou: Float64Array
    miou: float
    pixel_accuracy: float
    trimap_miou: Float64Array
    boundary_f: Float64Array
    mean_boundary_f: float
    void_share: float
    assumed_void_share: float
    absent: tuple[int, ...]


def count(truth: Labels, labels: Labels, valid: Mask, classes: int) -> Counts:
    """Compare the labels of one image with the truth.

    Trimap (Krähenbühl & Koltun 2011; Chen et al., arXiv 1606.00915, section 4.1): an edge pixel of the truth is one
    with another label above, below, left or right of it. Void counts as a label there, because masks often draw it
    along the edges of objects, but is not scored. Distances are Euclidean.

    Boundary: the edge pixels of a class, where its neighbour is not void, are right when one of the other map is
    within 0.75 % of the diagonal (Csurka et al., BMVC 2013).

    Args:
        truth: [H, W] class ids.
        labels: [H, W] class ids, each below `classes`.
        valid: [H, W] bool, false on void; `truth` is below `classes` where it is true.
        classes: C.

    Raises:
        ShapeError: the arrays differ in size, or an id is out of range.
    """
    if not truth.shape == labels.shape == valid.shape or truth.ndim != 2:
        expected, actual = "three arrays [H, W]", f"{truth.shape}, {labels.shape} and {valid.shape}"
        raise ShapeError(f"truth, labels and valid must be {expected}; got {actual}", expected=expected, actual=actual)
    scored_truth, scored_labels = truth[valid], labels[valid]
    highest = max(scored_truth.max(initial=0), scored_labels.max(initial=0))
    if highest >= classes:
        expected, actual = f"class ids from 0 to {classes - 1}", str(highest)
        raise ShapeError(f"expected {expected}; got {actual}", expected=expected, actual=actual)
    void = np.uint32(classes)
    edges = label_edges(np.where(valid, truth, void), np.ones_like(valid))
    ring = np.sqrt(squared_distances(edges, MAX_BAND_PX)[valid]).astype(np.intp).clip(max=MAX_BAND_PX)
    cells = (ring * classes + scored_truth) * classes + scored_labels
    shape = (MAX_BAND_PX + 1, classes, classes)
    rings = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)
    void_px = int(valid.size - np.count_nonzero(valid))
    return Counts(rings, boundary_counts(truth, labels, valid, classes), void_px)


def label_edges(labels: NDArray[Any], valid: Mask) -> Mask:
    """[H, W] bool: valid pixels with a valid neighbour of another label above, below, left or right."""
    edges = np.zeros(labels.shape, np.bool_)
    for first, second in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        differ = (labels[first] != labels[second]) & valid[first] & valid[second]
        edges[first] |= differ
        edges[second] |= differ
    return edges


def squared_distances(targets: Mask, reach: int) -> NDArray[np.unsignedinteger[Any]]:
    """Squared Euclidean distance from the nearest target, in px²: exact below `reach`², at least `reach`² beyond.

    First along the rows, then over the rows within reach. Costs O(H · W · reach), which for bands of 40 px is no more
    than an unbounded transform takes, and needs no further package.

    Args:
        targets: [H, W] bool.
        reach: in pixels, at least 1.
    """
    width = targets.shape[1]
    columns = np.arange(width)
    left = np.maximum.accumulate(np.where(targets, columns, -reach), axis=1)
    right = np.minimum.accumulate(np.where(targets, columns, width + reach)[:, ::-1], axis=1)[:, ::-1]
    # The sums stay below 2 · reach², which decides how few bytes the loop has to move.
    dtype = np.uint16 if 2 * reach**2 < 2**16 else np.uint32
    along_row = (np.minimum(np.minimum(columns - left, right - columns), reach) ** 2).astype(dtype)
    nearest: NDArray[np.unsignedinteger[Any]] = along_row.copy()
    for step in range(1, min(reach, len(targets))):
        np.minimum(nearest[step:], along_row[:-step] + dtype(step**2), out=nearest[step:])
        np.minimum(nearest[:-step], along_row[step:] + dtype(step**2), out=nearest[:-step])
    return nearest


def iou(confusion: IntArray) -> Float64Array:
    """Intersection over union [..., C] of confusion counts [..., C, C]; NaN where a class does not occur."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(hits, confusion.sum(-1) + confusion.sum(-2) - hits)


def boundary_f_scores(boundary: IntArray) -> Float64Array:
    """F-score [C] of one image's boundary counts [4, C]; 0 where one map lacks the class, NaN where both do."""
    labels_right, labels_all, truth_right, truth_all = boundary
    precision, recall = _ratio(labels_right, labels_all), _ratio(truth_right, truth_all)
    score = _ratio(2 * precision * recall, precision + recall)
    return np.where(labels_all + truth_all > 0, np.nan_to_num(score), np.nan)


class Tally:
    """Adds images up.

    Args:
        classes: C.
        ignored: ids that are void in the truth: classes among them have no score of their own.
    """

    def __init__(self, classes: int, *, ignored: frozenset[int] = frozenset()) -> None:
        self._scored = np.array([index not in ignored for index in range(classes)])
        self._rings = np.zeros((MAX_BAND_PX + 1, classes, classes), np.int64)
        self._boundary_sum = np.zeros(classes)
        self._boundary_pictures = np.zeros(classes, np.int64)
        self._void_px = self._assumed_void_px = 0

    def add(self, counts: Counts) -> None:
        """Add one image. In another order, boundary scores can differ in their last bit."""
        self._rings += counts.rings
        scores = boundary_f_scores(counts.boundary)
        self._boundary_sum += np.nan_to_num(scores)
        self._boundary_pictures += ~np.isnan(scores)
        self._void_px += counts.void_px
        self._assumed_void_px += counts.assumed_void_px

    def scores(self) -> Scores:
        """The scores of what was added so far."""
        confusion = self._rings.sum(0)
        by_class = np.where(self._scored, iou(confusion), np.nan)
        by_band = np.where(self._scored, iou(self._rings[:MAX_BAND_PX].cumsum(0)), np.nan)
        boundary = np.where(self._scored, _ratio(self._boundary_sum, self._boundary_pictures), np.nan)
        accuracy = _ratio(np.trace(confusion), confusion.sum())
        pixels = confusion.sum() + self._void_px
        return Scores(
            confusion=confusion,
            iou=by_class,
            miou=float(_mean(by_class)),
            pixel_accuracy=float(accuracy),
            trimap_miou=_mean(by_band),
            boundary_f=boundary,
            mean_boundary_f=float(_mean(boundary)),
            void_share=float(_ratio(self._void_px, pixels)),
            assumed_void_share=float(_ratio(self._assumed_void_px, pixels)),
            absent=tuple(np.flatnonzero(self._scored & (confusion.sum(1) == 0)).tolist()),
        )


def boundary_counts(truth: Labels, labels: Labels, valid: Mask, classes: int) -> IntArray:
    """Counts [4, C] of boundary pixels, as in `Counts.boundary`; arguments as in `count`."""
    counts = np.zeros((4, classes), np.int64)
    tolerance_px = BOUNDARY_TOLERANCE * math.hypot(*truth.shape)
    truth_edges, label_edge = label_edges(truth, valid), label_edges(labels, valid)
    for index in range(classes):
        of_truth, of_labels = truth_edges & (truth == index), label_edge & (labels == index)
        either = of_truth | of_labels
        if not either.any():
            continue
        # Both boundaries and every distance between them lie in the box around them.
        box = _extent(either.any(1)), _extent(either.any(0))
        of_truth, of_labels = of_truth[box], of_labels[box]
        counts[:, index] = (
            np.count_nonzero(of_labels & _near(of_truth, tolerance_px)),
            np.count_nonzero(of_labels),
            np.count_nonzero(of_truth & _near(of_labels, tolerance_px)),
            np.count_nonzero(of_truth),
        )
    return counts


def _near(targets: Mask, distance_px: float) -> Mask:
    near: Mask = squared_distances(targets, int(distance_px) + 1) <= distance_px**2
    return near


def _extent(occupied: Mask) -> slice:
    """The slice from the first true entry to the last."""
    indices = np.flatnonzero(occupied)
    return slice(int(indices[0]), int(indices[-1]) + 1)


def _ratio(part: Any, whole: Any) -> Float64Array:  # noqa: ANN401 - integer and float arrays alike
    """`part / whole`, NaN where `whole` is 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(part, whole))


def _mean(values: Float64Array) -> Float64Array:
    """The mean over the last axis of what is not NaN."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0).sum(-1), there.sum(-1))
