"""Comparison of a candidate's logits with those of a reference, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...arrays import FloatArray
from ...errors import ExportError
from ...manifest import SOFTMAX, Channels, Precision, Verification
from ...runtime.channels import label_logits

#: Prepared images [N, 3, H, W] float32 → scores [N, C, h, w] float32, or labels [N, h, w] uint8.
Infer = Callable[[FloatArray], NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """Bounds within which two networks count as equal.

    Attributes:
        max_relative: largest absolute difference of logits, as a share of the reference's largest magnitude.
        min_agreement: share of coarse positions that must have the same class.
        max_miou_drop: mean IoU that may be lost where there are masks.
    """

    max_relative: float
    min_agreement: float
    max_miou_drop: float


#: FP32 against FP32: other summation orders only. Worst measured: see tests/tolerances.py.
FP32_TOLERANCE: Final = Tolerance(max_relative=1e-4, min_agreement=0.999, max_miou_drop=1e-3)
#: By the lower precision of the two that are compared. These catch what is broken; whether the accuracy of a quantized
#: model is good enough is for real pictures with masks to say. FP16, measured on the demo's network: on a synthetic
#: picture that is like nothing it was trained on, 3.4 % and 98.7 %; on CamVid's, 1.6 % and 99.95 %, and its mean IoU
#: changes by 0.009 points.
TOLERANCES: Final[Mapping[Precision, Tolerance]] = {
    "fp32": FP32_TOLERANCE,
    "fp16": Tolerance(max_relative=0.1, min_agreement=0.97, max_miou_drop=5e-3),
    "int8": Tolerance(max_relative=0.3, min_agreement=0.9, max_miou_drop=2e-2),
}


def compare(
    candidate: Infer,
    reference: Infer,
    inputs: Iterable[FloatArray],
    *,
    artifact: str,
    against: str,
    channels: Channels = SOFTMAX,
    tolerance: Tolerance = FP32_TOLERANCE,
) -> Verification:
    """Run both on every input [N, 3, H, W], and hold the differences to the tolerance.

    Both answer logits [N, channels, h, w] of those `channels`, or both labels [N, h, w] uint8, whose `max_abs` is 0 by
    definition: the distance between two class ids says nothing, only the agreement counts.
    """
    max_abs, magnitude, same, positions = 0.0, 0.0, 0, 0
    shapes = []
    for batch in inputs:
        expected, actual = reference(batch), candidate(batch)
        shapes.append(batch.shape)
        # A NaN or an infinity on either side fails too: no difference can be taken, and max() would drop a NaN.
        if expected.shape != actual.shape or not (np.isfinite(expected).all() and np.isfinite(actual).all()):
            return Verification(artifact, against, float("inf"), 0.0, passed=False, inputs=tuple(shapes))
        if np.issubdtype(expected.dtype, np.floating):
            max_abs = max(max_abs, float(np.abs(expected - actual).max()))
            magnitude = max(magnitude, float(np.abs(expected).max()))
            expected, actual = (label_logits(each, channels).argmax(axis=1) for each in (expected, actual))
        same += int((expected == actual).sum())
        positions += expected.size
    agreement = same / positions
    passed = max_abs <= tolerance.max_relative * magnitude and agreement >= tolerance.min_agreement
    return Verification(artifact, against, max_abs, agreement, passed=passed, inputs=tuple(shapes))


def require_passed(verification: Verification, tolerance: Tolerance = FP32_TOLERANCE) -> None:
    """Raise `ExportError` with the numbers when a comparison failed."""
    if verification.passed:
        return
    raise ExportError(
        f"{verification.artifact} does not compute what {verification.against} computes: largest difference "
        f"{verification.max_abs:.3g}, same class at {verification.argmax_agreement:.4%} of positions; allowed are "
        f"{tolerance.max_relative:g} of the largest logit and at least {tolerance.min_agreement:.2%}. "
        "Nothing was written. Does the model behave differently between calls, or depend on the values of its input?"
    )
