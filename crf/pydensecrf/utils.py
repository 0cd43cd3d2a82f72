"""The helpers of `pydensecrf.utils`."""
# ruff: noqa: N803 - the names are pydensecrf's

from __future__ import annotations

from collections.abc import Sequence
from logging import warning
from numbers import Number

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
    if not np.issubdtype(flat.dtype, np.integer) and flat.dtype != bool:
        raise CRFError(f"labels must be integers, got {flat.dtype}; convert them with .astype(int) if they are whole")
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


def compute_unary(labels: ArrayLike, M: int, GT_PROB: float = 0.5) -> Matrix:
    """Deprecated name of `unary_from_labels`; logs a warning."""
    warning("pydensecrf.compute_unary is deprecated, use unary_from_labels instead.")  # noqa: LOG015 - where pydensecrf logs
    return unary_from_labels(labels, M, GT_PROB)


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
    with np.errstate(divide="ignore"):  # −log 0 is what was asked for
        return np.asarray(-np.log(probabilities), dtype=np.float32).reshape(classes, -1)


def softmax_to_unary(sm: ArrayLike, GT_PROB: float = 1) -> Matrix:
    """Deprecated name of `unary_from_softmax` without a lowest probability; logs a warning.

    A probability of 0 gives an infinite energy, which excludes the class.
    """
    warning("pydensecrf.softmax_to_unary is deprecated, use unary_from_softmax instead.")  # noqa: LOG015
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> Matrix:
    """Position features for `addPairwiseEnergy`: the indices along each axis of `shape`, over `sdims`.

    Returns:
        [axes, pixels] float32, in the order (row, column, …): another lattice than `addPairwiseGaussian`, which takes
        (x, y), and so slightly other results.

    Raises:
        ShapeError: `sdims` does not have one entry per axis.
    """
    if len(sdims) != len(shape):
        raise ShapeError(f"sdims must have one entry per axis: expected {len(shape)}, got {len(sdims)}")
    return _divided(np.indices(tuple(shape)).astype(np.float32), sdims, "sdims").reshape(len(sdims), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: ArrayLike, chdim: int = -1
) -> Matrix:
    """Position and channel features for `addPairwiseEnergy`.

    Args:
        sdims: standard deviation along each axis of the image but the channels. Axes beyond the last one given are not
            divided, as in pydensecrf.
        schan: standard deviation of all channels, or one each: as a sequence of one, that of the first only, and
            channels beyond the last one given are not divided, as in pydensecrf.
        img: the image, of any dimension.
        chdim: the axis of the channels; -1 when there is none.

    Returns:
        [axes + channels, pixels] float32, in the order (row, column, …, channels).

    Raises:
        ShapeError: there are more entries in `sdims` than axes, or in `schan` than channels.
    """
    image = np.asarray(img)
    channels = (image[None] if chdim == -1 else np.moveaxis(image, chdim, 0)).astype(np.float32)
    positions = _divided(np.indices(channels.shape[1:]).astype(np.float32), sdims, "sdims")
    sigmas = (schan,) * len(channels) if isinstance(schan, (Number, float)) else schan
    features = np.concatenate([positions, _divided(channels, sigmas, "schan")])
    return features.reshape(features.shape[0], -1)


def _divided(rows: Matrix, sigmas: Sequence[float], name: str) -> Matrix:
    """The first rows, each over its standard deviation, and the others as they are."""
    if len(sigmas) > len(rows):
        raise ShapeError(f"{name} has more entries than there are axes: expected {len(rows)}, got {len(sigmas)}")
    for axis, sigma in enumerate(sigmas):
        rows[axis] /= sigma
    return rows
