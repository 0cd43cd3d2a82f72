"""How few layers must leave INT8 so that a budget holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ..errors import CalibrationError
from .report.model import BudgetStep


class Measured(Protocol):
    """Anything of which is known what it costs."""

    @property
    def drop(self) -> float:
        """Points lost against FP32."""


_Measured = TypeVar("_Measured", bound=Measured)


def hold_budget(
    ranking: Sequence[str], attempt: Callable[[Sequence[str]], _Measured], max_drop: float
) -> tuple[_Measured, tuple[BudgetStep, ...]]:
    """Take the most sensitive layers out of INT8 until at most `max_drop` points are lost.

    Tries none, then 1, 2, 4 … from the front of the ranking; the first that holds is narrowed down by bisection. So
    the number of measurements grows with the logarithm of the number of layers. It is the fewest layers if each one
    taken out makes the graph better, which the ranking makes likely and nothing guarantees.

    Args:
        ranking: names of the layers, the most sensitive first.
        attempt: makes and measures what has these layers out of INT8; the best of what it makes is kept, the rest not.
        max_drop: points.

    Returns:
        What holds the budget with the fewest layers out, and every try in order.

    Raises:
        CalibrationError: `max_drop` is no number of points, or the drop exceeds it with all layers but the least
            sensitive one taken out. The message lists the tries.
    """
    check_max_drop(max_drop)
    steps: list[BudgetStep] = []

    def held(count: int) -> _Measured | None:
        made = attempt(ranking[:count])
        steps.append(BudgetStep(tuple(ranking[:count]), made.drop))
        return made if made.drop <= max_drop else None

    most = len(ranking) - 1  # with none left there would be no INT8 graph
    powers = (2**power for power in range(len(ranking).bit_length()))
    failed = -1
    for tried in (0, *(power for power in powers if power < most), *([most] if most else [])):
        best = held(tried)
        if best is not None:
            break
        failed = tried
    else:
        raise CalibrationError(
            f"no INT8 graph loses at most {max_drop:g} points. Tried: {_describe(steps)}. Allow a larger drop, "
            "calibrate with more or other pictures or another method, or use FP16."
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
        raise CalibrationError(f"the budget must be 0 or more points; got {max_drop}")


def _describe(steps: Sequence[BudgetStep]) -> str:
    """`all layers in INT8: 3.1 points; without 'conv1': 2.9 points; …`."""
    parts = []
    for step in steps:
        names = ", ".join(repr(name) for name in step.returned[:3])
        more = f" and {len(step.returned) - 3} more" if len(step.returned) > 3 else ""
        parts.append(f"{f'without {names}{more}' if names else 'all layers in INT8'}: {step.drop:.3g} points")
    return "; ".join(parts)
