from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from atrous.errors import ExportError
from atrous.exporter.verify import FP32_TOLERANCE, Comparison, Tolerance, require_passed
from atrous.manifest import Verification

BATCH = np.zeros((1, 3, 8, 8), np.float32)
LOGITS = np.random.default_rng(0).standard_normal((1, 5, 40, 50)).astype(np.float32)


def judge(candidate: NDArray, reference: NDArray = LOGITS, tolerance: Tolerance = FP32_TOLERANCE) -> Verification:
    comparison = Comparison("a", "b", tolerance)
    comparison.add(BATCH, reference, candidate)
    return comparison.result()


class TestCompare:
    def test_equal(self) -> None:
        assert judge(LOGITS) == Verification("a", "b", 0.0, 1.0, passed=True, inputs=((1, 3, 8, 8),))

    @pytest.mark.parametrize(("share", "passed"), [(0.9, True), (1.1, False)])
    def test_the_largest_difference_counts(self, share: float, passed: bool) -> None:
        offset = np.float32(share * FP32_TOLERANCE.max_relative * np.abs(LOGITS).max())
        check = judge(LOGITS + offset)
        assert check.passed is passed
        assert check.max_abs == pytest.approx(offset, rel=1e-2)

    @pytest.mark.parametrize(("swapped", "passed"), [(2, True), (3, False)])
    def test_classes_must_agree(self, swapped: int, passed: bool) -> None:
        # Nearly tied everywhere, so that the classes differ where the values hardly do: 2 of 2000 positions may.
        reference = np.zeros_like(LOGITS)
        reference[:, 0], reference[:, 1] = 1, 1 - 1e-6
        candidate = reference.copy()
        candidate[0, :2, 0, :swapped] = candidate[0, 1::-1, 0, :swapped]
        check = judge(candidate, reference)
        assert (check.passed, check.argmax_agreement) == (passed, 1 - swapped / 2000)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("where", ["candidate", "reference", "both"])
    def test_what_is_not_finite_fails(self, value: float, where: str) -> None:
        wrong = LOGITS.copy()
        wrong[0, 0, 0, 0] = value
        candidate, reference = (wrong if where in (side, "both") else LOGITS for side in ("candidate", "reference"))
        check = judge(candidate, reference)
        assert not check.passed
        assert check.max_abs == np.inf

    def test_another_shape_fails(self) -> None:
        check = judge(LOGITS[:, :, :-1])
        assert (check.passed, check.max_abs, check.argmax_agreement) == (False, np.inf, 0.0)

    def test_labels_are_compared_as_labels(self) -> None:
        labels = np.zeros((1, 40, 50), np.uint8)
        other = labels.copy()
        other[0, 0, :3] = 255
        assert judge(labels, labels).passed
        assert judge(other, labels) == Verification("a", "b", 0.0, 0.9985, passed=False, inputs=((1, 3, 8, 8),))

    def test_every_input_is_judged(self) -> None:
        comparison = Comparison("a", "b", FP32_TOLERANCE)
        for answer in (LOGITS, LOGITS + 1, LOGITS):
            comparison.add(BATCH, LOGITS, answer)
        check = comparison.result()
        assert not check.passed
        assert len(check.inputs) == 3

    def test_a_failure_is_raised_with_its_numbers(self) -> None:
        with pytest.raises(ExportError, match=r"a does not compute what b computes: .*Nothing was written"):
            require_passed(judge(LOGITS + 1))
        require_passed(judge(LOGITS))
