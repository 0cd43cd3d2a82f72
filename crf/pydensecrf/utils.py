"""The helpers of `pydensecrf.utils`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import CRFError, ShapeError

Matrix = NDArray[np.float32]


def unary_from_labels(labels: ArrayLike, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> Matrix:
    """Energies −log p of a labelling that is right with probability `gt_prob`.

    Args:
        labels: integers of any shape; with `zero_unsure` 0 means "unknown" and label k is class k − 1.
        n_labels: classes, not counting "unknown".
        gt_prob: between 0 and 1, exclusive.
        zero_unsure: treat 0 as "unknown", with equal energies.

    Returns:
        [n_labels, labels.size] float32.

    Raises:
        CRFError: `gt_prob` is not a probability, there are fewer than two classes, or a label is out of range.
    """
    flat = np.asarray(labels).ravel()
    if not 0 < gt_prob < 1:
        raise CRFError(f"gt_prob must lie between 0 and 1, exclusive, got {gt_prob}")
    if n_labels < 2:
        raise CRFError(f"unary_from_labels needs at least two classes to share 1 − gt_prob, got {n_labels}")
    classes = flat.astype(np.int64) - (1 if zero_unsure else 0)
    known = classes >= 0 if zero_unsure else np.ones(flat.shape, bool)
    if flat.size and (classes[known].min(initial=0) < 0 or flat.min() < 0 or classes.max() >= n_labels):
        highest = n_labels if zero_unsure else n_labels - 1
        raise CRFError(f"labels must lie in 0…{highest}, got {flat.min()}…{flat.max()}")
    energy = np.full((n_labels, flat.size), -np.log((1.0 - gt_prob) / (n_labels - 1)), np.float32)
    energy[classes[known], np.flatnonzero(known)] = -np.log(gt_prob)
    energy[:, ~known] = -np.log(1.0 / n_labels)
    return energy


def unary_from_softmax(sm: ArrayLike, scale: float | None = None, clip: float | None = 1e-5) -> Matrix:
    """Energies −log p of class probabilities.

    Args:
        sm: probabilities [classes, ...].
        scale: confidence in them, in (0, 1]: the rest is spread evenly over the classes.
        clip: lowest probability; None to take them as they are.

    Returns:
        [classes, pixels] float32.

    Raises:
        CRFError: `scale` is out of range.
    """
    probabilities = np.asarray(sm)
    classes = probabilities.shape[0]
    if scale is not None:
        if not 0 < scale <= 1:
            raise CRFError(f"scale must lie in (0, 1], got {scale}")
        probabilities = scale * probabilities + (1 - scale) / classes
    if clip is not None:
        probabilities = np.clip(probabilities, clip, 1.0)
    return np.asarray(-np.log(probabilities), dtype=np.float32).reshape(classes, -1)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> Matrix:
    """Position features for `addPairwiseEnergy`: the indices along each axis of `shape`, over `sdims`.

    Returns:
        [axes, pixels] float32, in the order (row, column, …): another lattice than `addPairwiseGaussian`, which takes
        (x, y), and so slightly other results.

    Raises:
        ShapeError: `sdims` does not have one entry an axis.
    """
    return _positions(sdims, shape).reshape(len(sdims), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: ArrayLike, chdim: int = -1
) -> Matrix:
    """Position and channel features for `addPairwiseEnergy`.

    Args:
        sdims: standard deviation along each axis of the image but the channels.
        schan: standard deviation of the channels, or one each.
        img: the image, of any dimension.
        chdim: the axis of the channels; -1 when there is none.

    Returns:
        [axes + channels, pixels] float32, in the order (row, column, …, channels).

    Raises:
        ShapeError: `sdims` does not have one entry an axis, or `schan` not one a channel.
    """
    image = np.asarray(img)
    channels = (image[None] if chdim == -1 else np.moveaxis(image, chdim, 0)).astype(np.float32)
    sigmas = np.asarray(schan, np.float32).reshape(-1)
    if sigmas.size not in (1, channels.shape[0]):
        raise ShapeError(f"schan must be a number or one a channel: expected {channels.shape[0]}, got {sigmas.size}")
    scaled = channels / sigmas.reshape(-1, *[1] * (channels.ndim - 1))
    features = np.concatenate([_positions(sdims, channels.shape[1:]), scaled])
    return features.reshape(features.shape[0], -1)


def _positions(sdims: Sequence[float], shape: Sequence[int]) -> Matrix:
    """Indices [axes, *shape] over standard deviations."""
    if len(sdims) != len(shape):
        raise ShapeError(f"sdims must have one entry an axis: expected {len(shape)}, got {len(sdims)}")
    indices = np.indices(tuple(shape)).astype(np.float32)
    return indices / np.asarray(sdims, np.float32).reshape(-1, *[1] * len(shape))
