"""How few layers must leave INT8 so that a budget holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..errors import CalibrationError
from .results import BudgetStep


def hold_budget(
    ranking: Sequence[str], measure_drop: Callable[[Sequence[str]], float], max_drop: float
) -> tuple[tuple[str, ...], tuple[BudgetStep, ...]]:
    """Take the most sensitive layers out of INT8 until at most `max_drop` points are lost.

    Tries none, then 1, 2, 4 … from the front of the ranking; the first that holds is narrowed down by bisection. So
    the number of measurements grows with the logarithm of the number of layers. It is the fewest layers if each one
    taken out makes the graph better, which the ranking makes likely and nothing guarantees.

    Args:
        ranking: names of the layers, the most sensitive first.
        measure_drop: points lost against FP32 with these layers out of INT8.
        max_drop: points.

    Returns:
        The layers to take out, and every try in order.

    Raises:
        CalibrationError: `max_drop` is no number of points, or the drop exceeds it with all layers but the least
            sensitive one taken out. The message lists the tries.
    """
    check_max_drop(max_drop)
    steps: list[BudgetStep] = []

    def holds(count: int) -> bool:
        steps.append(BudgetStep(tuple(ranking[:count]), measure_drop(ranking[:count])))
        return steps[-1].drop <= max_drop

    if holds(0):
        return (), tuple(steps)
    most = len(ranking) - 1  # with none left there would be no INT8 graph
    counts = [2**power for power in range(len(ranking).bit_length()) if 2**power < most]
    failed = 0
    for tried in (*counts, *([most] if most else [])):
        if holds(tried):
            break
        failed = tried
    else:
        raise CalibrationError(
            f"no INT8 graph loses at most {max_drop:g} points. Tried: {_describe(steps)}. Allow a larger drop, "
            "calibrate with more or other pictures or another method, or use FP16."
        )
    while tried - failed > 1:
        middle = (failed + tried) // 2
        if holds(middle):
            tried = middle
        else:
            failed = middle
    return tuple(ranking[:tried]), tuple(steps)


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
