"""Logits of a network as logits of its classes, whether its channels are those of a softmax or one of a sigmoid.

A sigmoid is a softmax over two channels of which the first is 0: softmax(0, z) = (1 − p, p) with p = sigmoid(z). So a
one-channel network gets that channel, and everything behind it computes on two classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import FloatArray, Labels
from ..manifest import Channels


def probability_logits(logits: FloatArray, channels: Channels) -> FloatArray:
    """Logits [..., C, h, w] whose softmax is the classes' probabilities, of a network's [..., channels, h, w]."""
    return logits if channels.threshold is None else _behind(0.0, logits)


def label_logits(logits: FloatArray, channels: Channels) -> FloatArray:
    """Logits [..., C, h, w] the largest of which is the label's, of a network's [..., channels, h, w].

    sigmoid(z) > threshold where z > log(threshold / (1 − threshold)).
    """
    return logits if channels.threshold is None else _behind(threshold_logit(channels.threshold), logits)


def refined_labels(labels: Labels, marginals: NDArray[np.float32], channels: Channels) -> Labels:
    """Labels [H, W] of marginals [C, H, W]: with a sigmoid 1 where that of class 1 is above the threshold.

    Args:
        labels: [H, W], the most probable classes, which they are with a softmax.
        marginals: [C, H, W], from the CRF.
        channels: the network's.
    """
    if channels.threshold is None:
        return labels
    decided: NDArray[np.uint8] = (marginals[1] > np.float32(channels.threshold)).astype(np.uint8)
    return decided


def threshold_logit(threshold: float) -> float:
    """The logit whose sigmoid is the threshold."""
    return math.log(threshold / (1 - threshold))


def _behind(first: float, logits: NDArray[Any]) -> NDArray[Any]:
    """The channel behind one of a constant."""
    return np.concatenate([np.full_like(logits, first), logits], axis=-3)
