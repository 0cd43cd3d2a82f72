from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from atrous.errors import ExportError
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.sizes import DynamicSize, size_policy
from atrous.exporter.verify import (
    FP32_TOLERANCE,
    Tolerance,
    compare,
    photo_inputs,
    probe_inputs,
    require_passed,
)
from atrous.manifest import InputSpec, Size, Verification

BATCH = np.zeros((1, 3, 8, 8), np.float32)
LOGITS = np.random.default_rng(0).standard_normal((1, 5, 40, 50)).astype(np.float32)


def judge(candidate: NDArray, reference: NDArray = LOGITS, tolerance: Tolerance = FP32_TOLERANCE) -> Verification:
    return compare(lambda _: candidate, lambda _: reference, [BATCH], artifact="a", against="b", tolerance=tolerance)


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
        answers = iter([LOGITS, LOGITS + 1, LOGITS])
        check = compare(lambda _: next(answers), lambda _: LOGITS, [BATCH] * 3, artifact="a", against="b")
        assert not check.passed
        assert len(check.inputs) == 3

    def test_a_failure_is_raised_with_its_numbers(self) -> None:
        with pytest.raises(ExportError, match=r"a does not compute what b computes: .*Nothing was written"):
            require_passed(judge(LOGITS + 1))
        require_passed(judge(LOGITS))


def spec(size: Size | DynamicSize, *, offset: int = 0) -> InputSpec:
    return Preprocessing().input_spec(size_policy(size, stride=8, offset=offset))


class TestProbeInputs:
    @pytest.mark.parametrize("offset", [0, 1])
    @pytest.mark.parametrize(
        "size",
        [
            DynamicSize((64, 64), (128, 192), (256, 256)),
            DynamicSize((64, 64), (64, 64), (128, 128)),
            DynamicSize((64, 64), (96, 64), (96, 96)),  # half-way is the optimum
            DynamicSize((32, 32), (64, 64), (64, 64)),
        ],
    )
    def test_a_range_is_tried_at_three_sizes_and_as_a_batch(self, size: DynamicSize, offset: int) -> None:
        inputs = spec(size, offset=offset)
        shapes = [probe.shape for probe in probe_inputs(inputs)]
        assert [shape[0] for shape in shapes] == [1, 1, 1, 2]
        assert len({shape[2:] for shape in shapes}) == 3
        assert shapes[0][2:] == inputs.size.min
        assert inputs.size.opt in {shape[2:] for shape in shapes}
        for shape in shapes:
            for axis in (0, 1):
                assert inputs.size.min[axis] <= shape[2 + axis] <= inputs.size.max[axis]
                assert (shape[2 + axis] - offset) % inputs.size.multiple == 0

    def test_a_range_of_two_sizes(self) -> None:
        probes = probe_inputs(spec(DynamicSize((64, 64), (64, 64), (64, 80))))
        assert [probe.shape for probe in probes] == [
            (1, 3, 64, 64),
            (1, 3, 64, 80),
            (2, 3, 64, 80),
        ]

    def test_one_size_is_tried_with_three_pictures(self) -> None:
        probes = probe_inputs(spec((33, 49)))
        assert [probe.shape for probe in probes] == [(1, 3, 33, 49)] * 3
        assert not np.array_equal(probes[0], probes[1])

    def test_pictures_are_the_same_every_time_and_not_flat(self) -> None:
        first, second = (probe_inputs(spec((64, 64)))[0] for _ in range(2))
        assert np.array_equal(first, second)
        assert first.std() > 0.3

    def test_the_smallest_size_there_is(self) -> None:
        assert probe_inputs(spec((1, 1)))[0].shape == (1, 3, 1, 1)


class TestPhotoInputs:
    @pytest.mark.parametrize(
        ("height", "width", "expected"), [(100, 70, (112, 80)), (40, 40, (64, 64)), (300, 100, (256, 112))]
    )
    def test_padded_or_cropped(self, height: int, width: int, expected: Size) -> None:
        inputs = spec(DynamicSize((64, 64), (128, 192), (256, 256)))
        (batch,) = photo_inputs([np.zeros((height, width, 3), np.uint8)], inputs)
        assert batch.shape == (1, 3, *expected)

    def test_stretched(self) -> None:
        inputs = dataclasses.replace(spec((64, 96)), resize="stretch")
        (batch,) = photo_inputs([np.zeros((300, 10, 3), np.uint8)], inputs)
        assert batch.shape == (1, 3, 64, 96)
