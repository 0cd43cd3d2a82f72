"""Recognition of whose weights a state dict holds, and of the network that it comes closest to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ..options import Source
from .adapters import CLASSIFIER_WEIGHTS, SOURCE_NAMES, STEP_COUNTER, detect_source, foreign_names
from .registry import ARCHITECTURES, create_model

_SHOWN: Final = 3
_OWN: Final[Source] = "atrous"


@dataclass(frozen=True)
class Recognition:
    """Whose weights a state dict holds.

    Attributes:
        source: project whose names the keys are.
        keys: keys that say so; empty if none is known.
    """

    source: Source
    keys: tuple[str, ...]

    def __str__(self) -> str:
        """One line for the terminal."""
        if not self.keys:
            return f"recognised no other project's keys: taken as weights of {SOURCE_NAMES[self.source]}"
        return f"recognised as weights of {SOURCE_NAMES[self.source]} by {', '.join(self.keys)}"


def recognise(state_dict: Mapping[str, Tensor]) -> Recognition:
    """Recognise a state dict by the names of its last convolution."""
    source = detect_source(state_dict)
    return Recognition(source, tuple(key for key in CLASSIFIER_WEIGHTS[source] if key in state_dict))


def nearest_network(state_dict: Mapping[str, Tensor], source: Source, *, num_classes: int | None) -> str:
    """Describe the reference network whose names and shapes the most tensors of a state dict have.

    Args:
        state_dict: key → tensor.
        source: project whose names the keys are.
        num_classes: number of classes of the networks that are compared; None if it is not known, so that the source
            is not either: then the networks of all projects are compared, without their classifiers.

    Returns:
        A sentence with the network, how many tensors it shares, and the first that differ.
    """
    found = {key: value.shape for key, value in state_dict.items() if not key.endswith(STEP_COUNTER)}
    best: tuple[int, str, dict[str, torch.Size]] = (-1, "", {})
    for name, entry in ARCHITECTURES.items():
        for origin in (source,) if num_classes is not None else (*entry.sources, _OWN):
            wanted = _expected(name, origin, found, num_classes)
            shared = sum(found.get(key) == shape for key, shape in wanted.items())
            # Of two that share as many, the smaller one: what it lacks are tensors that the other has as well.
            if (shared, -len(wanted)) > (best[0], -len(best[2])):
                best = (shared, name, wanted)
    shared, name, wanted = best
    if shared <= 0 and num_classes is None:
        return "No reference network shares a tensor of the same name and shape with it"
    if shared <= 0:
        return f"No reference network has these names in weights of {SOURCE_NAMES[source]}"
    sentence = f"The nearest is {name}: {shared} of its {len(wanted)} tensors have this name and shape"
    differing = [
        f"{key} (network {list(shape)}, checkpoint {list(found[key]) if key in found else 'without it'})"
        for key, shape in wanted.items()
        if found.get(key) != shape
    ]
    return f"{sentence}; the first that differ: {', '.join(differing[:_SHOWN])}" if differing else sentence


def _expected(
    name: str, source: Source, keys: Mapping[str, torch.Size], num_classes: int | None
) -> dict[str, torch.Size]:
    """Foreign key → shape of a network's tensors; empty if it is not the source's."""
    if source != "atrous" and source not in ARCHITECTURES[name].sources:
        return {}
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes or 1)
    names = foreign_names(model, source, keys)
    if names is None:
        return {}
    expected = {}
    for key, value in model.state_dict().items():
        module, _, parameter = key.rpartition(".")
        if parameter != STEP_COUNTER:
            expected[f"{names[module]}.{parameter}"] = value.shape
    if num_classes is None:
        for weight in CLASSIFIER_WEIGHTS[source]:
            for key in (weight, weight.removesuffix("weight") + "bias"):
                expected.pop(key, None)
    return expected
