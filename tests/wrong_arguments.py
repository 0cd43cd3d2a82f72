"""Calls of every public function with arguments of every wrong kind, each in its turn, the others being right.

Run as `python tests/wrong_arguments.py`, it prints the table of docs/what-is-checked.md.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import sys
import tempfile
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from crf_calls import crf_calls, learning_calls
from public_calls import documented_calls, python_calls
from sandbox_calls import Call, Sandbox
from verb_calls import verb_calls

from atrous.errors import ArgumentError, AtrousError


class Unprintable:
    """A value that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def wrong_values() -> dict[str, list[Any]]:
    """Kind → values of it; new ones each time, since a function may keep or change them."""
    return {
        "None": [None],
        "bool": [True, False],
        "string": ["", "text", "a\0b", "\ud800", "x" * 5000, b"bytes", "1"],
        "number": [0, -1, 7, 0.5, 1j, 1e308],
        "huge number": [2**31, 2**63, 10**400, -(2**70)],
        "NaN and infinity": [math.nan, math.inf, -math.inf],
        "NumPy scalar": [np.int64(3), np.uint8(2), np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("s")],
        "list and tuple": [[1, 2], (3, 4), [None], ["a", 1], [(1, 2), (3, 4)], (math.nan, 1), (2**70, 2**70)],
        "empty": [[], (), {}, set(), b"", np.empty(0), np.empty((0, 3), np.uint8), np.empty((0, 4, 4))],
        "mapping and set": [{"a": 1}, {1, 2}, frozenset({None})],
        "array": [
            np.zeros((2, 2)),
            np.zeros((2, 4, 4), np.float32),
            np.full((3, 16, 16), np.nan, np.float32),
            np.zeros((16, 16, 3), np.uint8),
            np.zeros((16, 16, 3), np.int64),
            np.array([None, "a"], object),
            np.array("text"),
        ],
        "function and type": [print, int, lambda: None, ...],
        "object": [object(), Unprintable(), iter([1]), Path("nowhere"), threading.Lock(), ValueError("x"), np],
    }


#: What a call may do; anything else is foreign.
ARGUMENT, REFUSED, USAGE, SUCCEEDED = "ArgumentError", "another AtrousError", "wrong usage", "success"
OUTCOMES = (ARGUMENT, REFUSED, USAGE, SUCCEEDED)


def attempt(call: Call, argument: str, value: object) -> str:
    """Call with one wrong argument: one of `OUTCOMES`, or the foreign exception in words."""
    function, arguments = call.make()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            function(**{**arguments, argument: value})
    except ArgumentError:
        return ARGUMENT
    except AtrousError:
        return REFUSED
    except (typer.BadParameter, typer.Exit):
        return USAGE
    except Exception as exc:
        return f"{type(exc).__module__}.{type(exc).__name__}: {str(exc)[:200]}"
    return SUCCEEDED


def attempts(call: Call, kind: str) -> Iterator[tuple[str, str]]:
    """Every argument with every value of a kind: where, and what happened."""
    for argument in call.arguments():
        for number in range(len(wrong_values()[kind])):
            value = wrong_values()[kind][number]
            yield f"{call.name}({argument}=…{kind} {number})", attempt(call, argument, value)


def all_calls(folder: Path) -> list[Call]:
    """Every public function."""
    box = Sandbox(folder)
    return [*python_calls(box), *documented_calls(box), *crf_calls(box), *learning_calls(), *verb_calls(box)]


def count_outcomes(calls: Sequence[Call]) -> dict[str, Counter[str]]:
    """Kind → how often each outcome came; foreign exceptions as one, printed to standard error."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for kind in wrong_values():
        for call in calls:
            for where, outcome in attempts(call, kind):
                if outcome not in OUTCOMES:
                    print(f"{where}: {outcome}", file=sys.stderr)
                counts[kind][outcome if outcome in OUTCOMES else "foreign"] += 1
    return counts


def table(counts: Mapping[str, Counter[str]]) -> str:
    """Markdown."""
    columns = (*OUTCOMES, "foreign")
    rows = [f"| kind of value | calls | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    everything: Counter[str] = Counter()
    for kind, found in counts.items():
        rows.append(_row(kind, found, columns))
        everything += found
    return "\n".join([*rows, _row("all", everything, columns)])


def _row(kind: str, found: Counter[str], columns: Sequence[str]) -> str:
    return f"| {kind} | {found.total()} | {' | '.join(str(found[column]) for column in columns)} |"


def main() -> None:
    """Print the table."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        calls = all_calls(Path(folder))
        arguments = sum(len(call.arguments()) for call in calls)
        print(f"{len(calls)} functions, {arguments} arguments\n\n{table(count_outcomes(calls))}")


if __name__ == "__main__":
    main()
