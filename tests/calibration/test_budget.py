from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.calibration.budget import hold_budget
from atrous.errors import CalibrationError

LAYERS = tuple(f"conv{index}" for index in range(60))


@dataclass(frozen=True)
class Attempt:
    returned: tuple[str, ...]
    drop: float


class Drops:
    """Attempts, with points lost by the number of layers taken out, and how often there was one."""

    def __init__(self, by_count: Sequence[float]) -> None:
        self.by_count, self.counts = by_count, []

    def __call__(self, returned: Sequence[str]) -> Attempt:
        assert tuple(returned) == LAYERS[: len(returned)]
        self.counts.append(len(returned))
        return Attempt(tuple(returned), self.by_count[len(returned)])


def test_holds_at_once() -> None:
    best, steps = hold_budget(LAYERS, Drops([0.5, 0.0]), max_drop=0.5)
    assert best == Attempt((), 0.5)
    assert [(step.returned, step.drop) for step in steps] == [((), 0.5)]


def test_the_fewest_layers_that_hold() -> None:
    drops = Drops([10 - index for index in range(60)])
    best, steps = hold_budget(LAYERS, drops, max_drop=4.5)
    assert best == Attempt(LAYERS[:6], 4)
    assert drops.counts == [0, 1, 2, 4, 8, 6, 5]
    assert steps[-2].drop == 4
    assert steps[-2].returned == LAYERS[:6]


@given(st.integers(2, 60), st.integers(0, 58), st.data())
def test_any_number_is_found_in_few_tries(layers: int, needed: int, data: st.DataObject) -> None:
    needed = min(needed, layers - 1)
    drops = Drops([1.0] * needed + [0.0] * (layers - needed))
    best, steps = hold_budget(LAYERS[:layers], drops, max_drop=data.draw(st.floats(0, 0.99)))
    assert len(best.returned) == needed
    assert len(steps) == len(set(drops.counts)) <= 14


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_a_failure_lists_what_was_tried(layers: int) -> None:
    drops = Drops([3.25] * layers + [0.0])
    with pytest.raises(CalibrationError, match=r"budget of 0\.1 points.* all layers in INT8: 3\.25 points") as caught:
        hold_budget(LAYERS[:layers], drops, max_drop=0.1)
    assert max(drops.counts) == layers - 1
    if layers == 5:
        assert "without 'conv0', 'conv1': 3.25 points" in str(caught.value)
        assert "without 'conv0', 'conv1', 'conv2' and 1 more: 3.25 points" in str(caught.value)


@pytest.mark.parametrize("max_drop", [-0.1, float("nan"), float("inf")])
def test_a_budget_that_is_none(max_drop: float) -> None:
    with pytest.raises(CalibrationError, match="a finite number of points, 0 or more"):
        hold_budget(LAYERS, Drops([0.0]), max_drop)
