"""Meaning of a network's channels, from their number, the classes and the threshold that a user gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import ExportError
from ..manifest import SOFTMAX, Channels, ClassInfo

_DEFAULT_THRESHOLD: Final = 0.5


def channels_of(shape: Sequence[int], classes: Sequence[ClassInfo], threshold: float | None) -> Channels:
    """Decide what the channels of logits [N, channels, h, w] are.

    One channel for each of two or more classes is a softmax; one channel and two classes are a sigmoid.

    Raises:
        ExportError: the channels do not fit the classes, or the threshold does not fit the channels.
    """
    names = [entry.name for entry in classes]
    if len(shape) == 4 and shape[1] == 1 and len(names) in (1, 2):
        if len(names) == 1:
            raise ExportError(
                f"the model returns {list(shape)}, one channel, and has one class, {names[0]!r}. A softmax over one "
                "channel is 1 everywhere, so every label would be 0. If the sigmoid of the channel is the probability "
                f"of {names[0]!r}, give two classes, what it is not first: classes=['background', {names[0]!r}]"
            )
        return Channels("sigmoid", _checked(_DEFAULT_THRESHOLD if threshold is None else threshold))
    if len(shape) != 4 or shape[1] != len(names):
        raise ExportError(
            f"the model returns {list(shape)}; expected [N, {len(names)}, h, w], one channel for each of "
            f"the {len(names)} classes ({', '.join(names)})"
        )
    if threshold is not None:
        raise ExportError(
            f"a threshold is for networks with one channel and a sigmoid; this one returns {list(shape)}, one channel "
            f"for each of {len(names)} classes, of which the most probable is the label. Leave the threshold out."
        )
    return SOFTMAX


def _checked(threshold: float) -> float:
    if not 0 < threshold < 1:
        raise ExportError(f"the threshold is a probability between 0 and 1, exclusive; got {threshold}")
    return float(threshold)
