"""Search for the fewest layers to take out of INT8 so that an accuracy budget holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ..errors import CalibrationError
from .report.model import BudgetStep


class Measured(Protocol):
    """Anything with a measured accuracy drop."""

    @property
    def drop(self) -> float:
        """Points lost against FP32."""


_Measured = TypeVar("_Measured", bound=Measured)


def hold_budget(
    ranking: Sequence[str], attempt: Callable[[Sequence[str]], _Measured], max_drop: float
) -> tuple[_Measured, tuple[BudgetStep, ...]]:
    """Take the most sensitive layers out of INT8 until at most `max_drop` points are lost.

    Tries 0, 1, 2, 4 … layers from the front of the ranking, then bisects below the first count that holds, so the
    number of measurements grows with the logarithm of the number of layers. The result is minimal if every removed
    layer improves the graph, which the ranking makes likely but does not guarantee.

    Args:
        ranking: names of the layers, the most sensitive first.
        attempt: makes and measures a graph without these layers in INT8; only the best result is kept in memory.
        max_drop: budget in percentage points.

    Returns:
        The result with the fewest layers removed that holds the budget, and every attempt in order.

    Raises:
        CalibrationError: `max_drop` is negative or not finite, or the drop exceeds it even with the least sensitive
            layer alone in INT8. The message lists the attempts.
    """
    check_max_drop(max_drop)
    steps: list[BudgetStep] = []

    def held(count: int) -> _Measured | None:
        made = attempt(ranking[:count])
        steps.append(BudgetStep(tuple(ranking[:count]), made.drop))
        return made if made.drop <= max_drop else None

    max_removed = len(ranking) - 1  # at least one layer must stay in INT8
    powers = (2**power for power in range(len(ranking).bit_length()))
    failed = -1
    for tried in (0, *(power for power in powers if power < max_removed), *([max_removed] if max_removed else [])):
        best = held(tried)
        if best is not None:
            break
        failed = tried
    else:
        raise CalibrationError(
            f"no INT8 graph holds the budget of {max_drop:g} points. Tried: {_describe(steps)}. Allow a larger drop, "
            "calibrate with more or different images or another method, or use FP16."
        )
    while tried - failed > 1:
        middle = (failed + tried) // 2
        better = held(middle)
        if better is None:
            failed = middle
        else:
            tried, best = middle, better
    return best, tuple(steps)


def check_max_drop(max_drop: float) -> None:
    """Raises `CalibrationError` unless `max_drop` is a number of points, 0 or more."""
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise CalibrationError(f"max_drop must be a finite number of points, 0 or more; got {max_drop}")


def _describe(steps: Sequence[BudgetStep]) -> str:
    """`all layers in INT8: 3.1 points; without 'conv1': 2.9 points; …`."""
    parts = []
    for step in steps:
        names = ", ".join(repr(name) for name in step.returned[:3])
        more = f" and {len(step.returned) - 3} more" if len(step.returned) > 3 else ""
        parts.append(f"{f'without {names}{more}' if names else 'all layers in INT8'}: {step.drop:.3g} points")
    return "; ".join(parts)
