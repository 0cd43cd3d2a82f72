"""Comparison of a candidate's logits with those of a reference, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...arrays import FloatArray
from ...errors import ExportError
from ...manifest import SOFTMAX, Channels, Precision, SkippedInput, Verification
from ...runtime.channels import label_logits

#: Prepared images [N, 3, H, W] float32 → scores [N, C, h, w] float32, or labels [N, h, w] uint8.
Infer = Callable[[FloatArray], NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """Bounds within which two networks count as equal.

    Attributes:
        max_relative: largest absolute difference of logits, as a share of the reference's largest magnitude on that
            input.
        min_agreement: share of coarse positions that must have the same class.
        max_miou_drop: mean IoU that may be lost where there are masks.
    """

    max_relative: float
    min_agreement: float
    max_miou_drop: float


#: FP32 against FP32: other summation orders only. Worst measured: see tests/tolerances.py.
FP32_TOLERANCE: Final = Tolerance(max_relative=1e-4, min_agreement=0.999, max_miou_drop=1e-3)
#: By the lower precision of the two that are compared. These catch what is broken; whether the accuracy of a quantized
#: model is good enough is for real images with masks to say. FP16, measured on the demo's network: on a synthetic
#: image that is like nothing it was trained on, 3.4 % and 98.7 %; on CamVid's, 1.6 % and 99.95 %, and its mean IoU
#: changes by 0.009 points.
TOLERANCES: Final[Mapping[Precision, Tolerance]] = {
    "fp32": FP32_TOLERANCE,
    "bf16": Tolerance(max_relative=0.1, min_agreement=0.97, max_miou_drop=5e-3),
    "fp16": Tolerance(max_relative=0.1, min_agreement=0.97, max_miou_drop=5e-3),
    "int8": Tolerance(max_relative=0.3, min_agreement=0.9, max_miou_drop=2e-2),
}


class Comparison:
    """Differences of a candidate from a reference, added up over inputs.

    Args:
        artifact: what the record calls the candidate.
        against: what it calls the reference.
        tolerance: bounds of the differences: of logits on each input by itself, of classes over all.
        channels: what the channels of float scores mean.
    """

    def __init__(self, artifact: str, against: str, tolerance: Tolerance, *, channels: Channels = SOFTMAX) -> None:
        self._names = artifact, against
        self._tolerance = tolerance
        self._channels = channels
        self._max_abs, self._same, self._positions = 0.0, 0, 0
        self._comparable = True
        self._failed: list[tuple[int, ...]] = []
        self._shapes: list[tuple[int, ...]] = []
        self._pictures: list[str] = []

    def add(self, batch: FloatArray, expected: NDArray[Any], actual: NDArray[Any], *, picture: str = "") -> bool:
        """Take one input [N, 3, H, W] and both answers; False if the answers cannot be compared at all.

        Both answer float scores [N, C, h, w], or both labels [N, h, w] uint8, whose `max_abs` is 0 by definition: the
        distance between two class ids says nothing, only the agreement counts.
        """
        self._shapes.append(batch.shape)
        if picture:
            self._pictures.append(picture)
        # A NaN or an infinity on either side fails too: no difference can be taken, and max() would drop a NaN.
        if expected.shape != actual.shape or not (np.isfinite(expected).all() and np.isfinite(actual).all()):
            self._comparable = False
            self._failed.append(batch.shape)
            return False
        if np.issubdtype(expected.dtype, np.floating):
            difference = float(np.abs(expected - actual).max())
            self._max_abs = max(self._max_abs, difference)
            # Each input by itself: a size that goes wrong must not hide among others with larger logits.
            if difference > self._tolerance.max_relative * float(np.abs(expected).max()):
                self._failed.append(batch.shape)
            expected, actual = (label_logits(each, self._channels).argmax(axis=1) for each in (expected, actual))
        self._same += int((expected == actual).sum())
        self._positions += expected.size
        return True

    def result(self, *, skipped: Iterable[SkippedInput] = ()) -> Verification:
        """Record of the comparison."""
        agreement, max_abs = self._same / max(self._positions, 1), self._max_abs
        if not self._comparable:
            agreement, max_abs = 0.0, float("inf")
        return Verification(
            *self._names,
            max_abs,
            agreement,
            passed=not self._failed and agreement >= self._tolerance.min_agreement,
            inputs=tuple(self._shapes),
            pictures=tuple(self._pictures),
            skipped=tuple(skipped),
            failed=tuple(dict.fromkeys(self._failed)),
        )


def require_passed(verification: Verification, tolerance: Tolerance = FP32_TOLERANCE) -> None:
    """Raise `ExportError` with the numbers when a comparison failed."""
    if verification.passed:
        return
    shapes = ", ".join("×".join(map(str, shape)) for shape in verification.failed[:8])
    where = f" The inputs that differ: {shapes}." if shapes else ""
    raise ExportError(
        f"{verification.artifact} does not compute what {verification.against} computes: largest difference "
        f"{verification.max_abs:.3g}, same class at {verification.argmax_agreement:.4%} of positions; allowed are "
        f"{tolerance.max_relative:g} of the largest logit and at least {tolerance.min_agreement:.2%}.{where} "
        "Nothing was written. Does the model behave differently between calls, or decide by the values of its input, "
        "by its size or by its batch?"
    )
