"""Sizes that a trace holds for: what torch.export assumed while it followed the Python of a network once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import sympy
from torch.export import ExportedProgram

from ..errors import ExportError
from ..manifest import SizePolicy
from ..runtime.path import MAX_BATCH

#: Axes of the input that a range leaves open, with their names in messages.
_AXES: Final = {0: "N", 2: "H", 3: "W"}
#: Lengths of one axis that a condition is evaluated at: all of them for most ranges.
_MOST_LENGTHS: Final = 1024
#: Lengths of each axis for a condition on two of them.
_MOST_PAIRS: Final = 16
#: Lengths that a message names.
_SHOWN_GAPS: Final = 4


@dataclass(frozen=True)
class _Condition:
    """A truth about the axes that the trace holds under, with the symbols it is about."""

    holds: Any  # a sympy boolean: sympy has no types

    @property
    def axes(self) -> list[str]:
        """Names of the axes in it, sorted."""
        return sorted(symbol.name for symbol in self.holds.free_symbols)

    def fails_at(self, lengths: dict[str, int]) -> bool:
        """True if it is false for these lengths."""
        return bool(
            self.holds.xreplace({sympy.Symbol(name, integer=True): length for name, length in lengths.items()})
            == sympy.false
        )


def check_traced_sizes(program: ExportedProgram, sizes: SizePolicy, *, name: str) -> None:
    """Hold the sizes that were asked for to every condition that torch.export recorded.

    A network whose Python looks at sizes (`if h > 100`, `h % 8`, `h == w`) is traced along one branch; torch.export
    records what it assumed as ranges and assertions, which ONNX drops.

    Args:
        program: the trace.
        sizes: what the graph is exported for.
        name: what messages call the network.

    Raises:
        ExportError: a size in the range violates a condition; the message has the condition and the lengths that hold.
    """
    choices = {"N": range(1, MAX_BATCH + 1), "H": _lengths(sizes, 0), "W": _lengths(sizes, 1)}
    conditions = list(_conditions(program))
    for condition in conditions:
        few = {axis: _spread(choices[axis], _MOST_PAIRS) for axis in choices}
        axes = condition.axes
        tried = choices if len(axes) == 1 else few
        points = [dict(zip(axes, lengths, strict=True)) for lengths in itertools.product(*(tried[a] for a in axes))]
        failing = [point for point in points if condition.fails_at(point)]
        if failing:
            alike = [each for each in conditions if each.axes == axes]
            fine = [point for point in points if not any(each.fails_at(point) for each in alike)]
            raise ExportError(_message(name, condition, failing[0], points, fine))


def _conditions(program: ExportedProgram) -> Iterator[_Condition]:
    """Ranges, equal axes and assertions of a trace, in terms of N, H and W."""
    image = next(
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    )
    names: dict[Any, Any] = {}
    for axis, name in _AXES.items():
        length, symbol = image.shape[axis], sympy.Symbol(name, integer=True)
        expression = length if isinstance(length, int) else length.node.expr
        if isinstance(expression, sympy.Symbol) and expression not in names:
            names[expression] = symbol
        else:  # one length only, that of another axis, or a function of one
            yield _Condition(sympy.Eq(symbol, sympy.sympify(expression).xreplace(names)))
    for expression, allowed in program.range_constraints.items():
        if expression in names:
            yield from _range_conditions(names[expression], allowed.lower, allowed.upper)
    shape_env = image.fake_mode.shape_env
    for assertion in itertools.chain.from_iterable(shape_env.deferred_runtime_asserts.values()):
        if assertion.expr.free_symbols <= names.keys():
            yield _Condition(assertion.expr.xreplace(names))


def _range_conditions(symbol: Any, low: Any, high: Any) -> Iterator[_Condition]:  # noqa: ANN401 - sympy
    # torch takes lengths of 0 and 1 for special and may say 2 of any network; verification runs a batch of 1.
    if low.is_finite and low > 2:
        yield _Condition(sympy.Ge(symbol, low))
    if high.is_finite and high.is_number and high < 2**31:
        yield _Condition(sympy.Le(symbol, high))


def _lengths(sizes: SizePolicy, axis: int) -> list[int]:
    """Lengths of the range that the runtime gives the graph: k · multiple + offset."""
    low, high = sizes.min[axis], sizes.max[axis]
    return _spread(range(low, high + 1, sizes.multiple), _MOST_LENGTHS)


def _spread(lengths: Iterable[int], most: int) -> list[int]:
    """At most that many of them: all at both ends, then evenly spread ones."""
    every = list(lengths)
    if len(every) <= most:
        return every
    third = most // 3
    middle = np.linspace(third, len(every) - third - 1, most - 2 * third, dtype=int)
    return [*every[:third], *(every[index] for index in middle), *every[-third:]]


def _message(
    name: str, condition: _Condition, failing: dict[str, int], tried: list[dict[str, int]], fine: list[dict[str, int]]
) -> str:
    example = ", ".join(f"{axis}={length}" for axis, length in failing.items())
    said = f"{name} decides by the size of its input: torch.export traced it for {condition.holds} only, and {example} "
    said += "in the range that was asked for is not. ONNX holds one branch, so other sizes would be computed wrong. "
    if len(failing) == 1:
        (axis,) = failing
        said += (
            f"Of the asked {axis}, {_lengths_in_words(*([point[axis] for point in each] for each in (tried, fine)))}. "
        )
    return said + "Narrow the range, export one size, or make the network compute the same way at every size."


def _lengths_in_words(tried: list[int], fine: list[int]) -> str:
    if len(fine) < 2:
        return f"only {fine[0]} holds" if fine else "none holds"
    ends = f"{fine[0]} to {fine[-1]}"
    steps = set(np.diff(fine).tolist())
    if len(steps) == 1 and min(steps) > 1:
        return f"{ends} in steps of {min(steps)} hold"
    gaps = [length for length in tried if fine[0] < length < fine[-1] and length not in fine]
    if not gaps:
        return f"{ends} hold"
    few = ", ".join(map(str, gaps[:_SHOWN_GAPS])) + (" …" if len(gaps) > _SHOWN_GAPS else "")
    return f"{ends} hold without {few}"
