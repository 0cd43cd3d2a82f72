"""Proofs over a whole claim: what hides at one size is found, and what is not run is said."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from atrous.arrays import FloatArray
from atrous.errors import ExportError
from atrous.exporter.foreign import module_errors
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.verify import FP32_TOLERANCE, Named, prove
from atrous.exporter.verify import budget as budget_module
from atrous.exporter.verify.budget import Budget
from atrous.manifest import InputSpec, SizePolicy, Verification

INPUTS = Preprocessing().input_spec(SizePolicy((32, 32), (64, 64), (128, 128), 1))


def every_fourth(images: FloatArray) -> FloatArray:
    """Logits of three classes at stride 4."""
    return images[:, :, ::4, ::4]


def wrong_where(condition: Callable[[tuple[int, ...]], bool]) -> Callable[[FloatArray], FloatArray]:
    """The same network, but for inputs of some shapes, whose classes it turns around."""
    return lambda images: -every_fourth(images) if condition(images.shape) else every_fourth(images)


def judge(candidate: Callable[[FloatArray], FloatArray], inputs: InputSpec = INPUTS, **options: Budget) -> Verification:
    reference = Named("the reference", every_fourth)
    (check,) = prove([Named("the graph", candidate)], reference, inputs, tolerance=FP32_TOLERANCE, **options)
    return check


def test_the_same_network_passes() -> None:
    check = judge(every_fourth)
    assert (check.passed, check.max_abs, check.argmax_agreement, check.skipped) == (True, 0.0, 1.0, ())
    assert (check.artifact, check.against) == ("the graph", "the reference")


@pytest.mark.parametrize(
    "condition",
    [
        lambda shape: shape[2] > 100,
        lambda shape: shape[3] > 127,
        lambda shape: shape[2] < 33,
        lambda shape: shape[2] % 2 == 1,
        lambda shape: shape[2] % 8 != 0,
        lambda shape: shape[2] > shape[3],
        lambda shape: shape[2] < shape[3],
        lambda shape: shape[2] == shape[3] == 64,
        lambda shape: shape[0] == 1,
        lambda shape: shape[0] > 1,
        lambda shape: shape[0] == 3,
        lambda shape: shape[0] > 4,
    ],
)
def test_what_is_wrong_somewhere_fails(condition: Callable[[tuple[int, ...]], bool]) -> None:
    assert not judge(wrong_where(condition)).passed


def test_a_small_difference_at_one_size_is_not_drowned_by_larger_logits() -> None:
    def candidate(images: FloatArray) -> FloatArray:
        faint = images.shape[2:] == (32, 32)
        return every_fourth(images) * np.float32(1 + 3e-4 if faint else 1)

    check = judge(candidate)
    assert check.argmax_agreement == 1.0
    assert not check.passed
    assert check.failed == ((1, 3, 32, 32), (8, 3, 32, 32))


def test_pictures_of_a_batch_that_change_each_other_fail() -> None:
    assert not judge(lambda images: every_fourth(images - images.mean(axis=0) * (len(images) > 1))).passed


def test_every_candidate_has_its_record() -> None:
    candidates = [Named("right", every_fourth), Named("wrong", wrong_where(lambda shape: shape[2] > 100))]
    checks = prove(candidates, Named("reference", every_fourth), INPUTS, tolerance=FP32_TOLERANCE)
    assert [(check.artifact, check.passed) for check in checks] == [("right", True), ("wrong", False)]


def test_errors_of_other_libraries_name_network_and_input() -> None:
    def fails(images: FloatArray) -> FloatArray:
        raise ValueError(f"no {images.shape[2]}")

    with pytest.raises(ExportError, match=r"the graph fails on an input \[1, 3, 32, 32\]: no 32"):
        judge(fails)


class TestBudget:
    def test_what_takes_too_long_is_skipped_and_said(self) -> None:
        check = judge(every_fourth, budget=Budget(seconds=0.0))
        assert check.passed
        assert (1, 3, 128, 128) in {each.input for each in check.skipped}
        assert all("s left of 0 s" in each.reason for each in check.skipped)
        assert {(1, 3, 32, 32), (1, 3, 64, 64)} <= set(check.inputs)

    def test_the_largest_that_fits_takes_the_place_of_the_largest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Budget, "objection", lambda _, pixels: "too large" if pixels > 112 * 112 else None)
        check = judge(every_fourth)
        assert (1, 3, 112, 112) in check.inputs
        assert (1, 3, 128, 128) in {each.input for each in check.skipped}

    @pytest.mark.parametrize("wrap", [contextlib.nullcontext, lambda: module_errors(nn.Identity(), (1, 3, 8, 8))])
    @pytest.mark.parametrize(
        "error",
        [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), MemoryError()],
    )
    def test_no_memory_is_no_failure_of_the_network(
        self, error: Exception, wrap: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        def hungry(images: FloatArray) -> FloatArray:
            with wrap():
                if images.size > 3 * 100 * 100:
                    raise error
            return every_fourth(images)

        check = judge(hungry)
        assert check.passed
        assert all("not enough memory" in each.reason for each in check.skipped)
        assert (1, 3, 128, 128) in {each.input for each in check.skipped}

    def test_growth_and_not_the_first_cost_decides(self) -> None:
        budget = Budget(seconds=30.0)
        for pixels, seconds in ((1_000, 0.2), (100_000, 0.21)):  # compiling takes 0.2 s, a million pixels 0.1 s
            with budget.measure(pixels):
                time.sleep(seconds)
        assert budget.objection(1_000_000) is None
        assert "s left of 30 s" in str(budget.objection(10_000_000_000))

    def test_memory_is_told_from_its_growth(self, monkeypatch: pytest.MonkeyPatch) -> None:
        resident = iter([0, 1_000_000, 0, 3_000_000])
        monkeypatch.setattr(budget_module, "_watched_memory", lambda: contextlib.nullcontext([next(resident)]))
        monkeypatch.setattr(budget_module, "_free_bytes", lambda: 100_000_000)
        budget = Budget()
        next(resident)
        with budget.measure(10_000):
            pass
        next(resident)
        with budget.measure(20_000):
            pass
        assert budget.objection(100_000) is None  # 16 MB more, and a margin
        assert "GB more memory" in str(budget.objection(1_000_000))


def test_fixed_sizes_without_batches_are_run_alone() -> None:
    fixed = dataclasses.replace(INPUTS, size=SizePolicy((33, 49), (33, 49), (33, 49), 1))
    assert set(judge(every_fourth, fixed).inputs) == {(1, 3, 33, 49)}
