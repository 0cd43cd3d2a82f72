"""Counts of one labelling of an image, as few as a metric needs, and scores of sums of them.

An image is `rows` [R, C] int64: for each class the pixels that labels and truth have in common, those of the labels and
those of the truth. A trimap has the same three of its band below; boundaries have the four of `boundary_counts`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...arrays import Float64Array, Labels
from ...runtime.masks import MaskPixels
from ...runtime.metrics import IntArray, Mask, boundary_counts, boundary_f_scores, label_edges, squared_distances
from .options import TRIMAP_PX, Metric

_AREAS: Final = slice(0, 3)
_BAND: Final = slice(3, 6)
_BOUNDARY: Final = slice(3, 7)


def count_rows(metric: Metric, truth: MaskPixels, labels: Labels, classes: int, band: Mask | None) -> IntArray:
    """Counts [R, C] of labels [H, W] against a mask.

    Args:
        metric: what is to be scored.
        truth: the mask.
        labels: [H, W], each below `classes`.
        classes: C.
        band: [H, W] bool, the pixels of the trimap, where the metric is `trimap`.
    """
    parts = [_areas(truth.ids, labels, truth.valid, classes)]
    if metric == "trimap" and band is not None:
        parts.append(_areas(truth.ids, labels, band, classes))
    elif metric == "boundary-f":
        parts.append(boundary_counts(truth.ids, labels, truth.valid, classes))
    return np.concatenate(parts)


def trimap_band(truth: MaskPixels) -> Mask:
    """[H, W] bool: valid pixels less than `TRIMAP_PX` from an edge pixel of the mask, as in `runtime.metrics.count`."""
    labels = np.where(truth.valid, truth.ids.astype(np.int64), -1)
    edges = label_edges(labels, np.ones_like(truth.valid))
    band: Mask = truth.valid & (squared_distances(edges, TRIMAP_PX) < TRIMAP_PX**2)
    return band


def class_iou(images: IntArray, weights: NDArray[Any] | None = None) -> Float64Array:
    """IoU [..., C] over images [N, R, C]; NaN where a class is in neither map.

    Args:
        images: counts of each image.
        weights: [..., N] how often each image counts; once by default.
    """
    return _iou(_sum(images[:, _AREAS], weights))


def class_scores(metric: Metric, images: IntArray, weights: NDArray[Any] | None = None) -> Float64Array:
    """The metric by class, [..., C]; arguments as in `class_iou`."""
    if metric == "miou":
        return class_iou(images, weights)
    if metric == "trimap":
        return _iou(_sum(images[:, _BAND], weights))
    scores = np.array([boundary_f_scores(each) for each in images[:, _BOUNDARY]])  # [N, C]
    there = ~np.isnan(scores)
    return _ratio(_sum(np.where(there, scores, 0.0), weights), _sum(there.astype(np.int64), weights))


def classes_in_truth(images: IntArray) -> Mask:
    """[C] bool: classes that are in a mask."""
    present: Mask = images[:, 2].sum(axis=0) > 0
    return present


def mean_score(scores: Float64Array, scored: Mask) -> Float64Array:
    """Mean [...] of scores [..., C] over the classes [C] that count, without those that are NaN."""
    there = scored & ~np.isnan(scores)
    return _ratio(np.where(there, scores, 0.0).sum(axis=-1), there.sum(axis=-1))


def _areas(truth: Labels, labels: Labels, valid: Mask, classes: int) -> IntArray:
    scored_truth, scored_labels = truth[valid], labels[valid]
    return np.stack(
        [
            np.bincount(scored_truth[scored_truth == scored_labels], minlength=classes),
            np.bincount(scored_labels, minlength=classes),
            np.bincount(scored_truth, minlength=classes),
        ]
    ).astype(np.int64)


def _iou(areas: NDArray[Any]) -> Float64Array:
    """IoU [..., C] of areas [..., 3, C]."""
    both = areas[..., 0, :]
    return _ratio(both, areas[..., 1, :] + areas[..., 2, :] - both)


def _sum(images: NDArray[Any], weights: NDArray[Any] | None) -> NDArray[Any]:
    """Weighted sum [..., *] over images [N, *]."""
    return images.sum(axis=0) if weights is None else np.tensordot(weights, images, axes=([-1], [0]))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Float64Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.true_divide(part, whole))
