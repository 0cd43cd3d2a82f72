"""GPUs: that nothing has run on one, or what `make gpu-check` and `make gpu-bench` found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .results import Quote, Results, milliseconds, table

_NOTHING_RAN = (
    "**None of it has run on a GPU yet**: kernels and launch sequences are checked on an emulator, bit for bit where "
    "that is possible, and engines are built but not run. `make gpu-check` is ready for whoever has one."
)
_PASSED = ("passed", "passed, cut off")


def _gpu(results: Results) -> str:
    checks = map(_check, results.matching("gpu_*_check"))
    benchmarks = map(_benchmark, results.matching("gpu_*_bench"))
    return "\n\n".join([*checks, *benchmarks]) or _NOTHING_RAN


def _check(report: Mapping[str, Any]) -> str:
    """Every step of the check by its outcome."""
    outcomes: dict[str, list[str]] = {}
    for step, result in report.items():
        if step != "environment":
            outcome = "passed" if result["status"] in _PASSED else result["status"]
            outcomes.setdefault(outcome, []).append(step)
    said = [f"{outcome}: {', '.join(steps)}" for outcome, steps in outcomes.items()]
    return f"`make gpu-check` on {_machine(report)}: {'; '.join(said)}."


def _machine(report: Mapping[str, Any]) -> str:
    environment = report["environment"]
    return f"{environment['gpu']} (compute capability {environment['compute_capability']})"


def _benchmark(report: Mapping[str, Any]) -> str:
    """A row for each size and texture, at the default parameters, with a column for each precision."""
    rows = [row for row in report["crf"]["rows"] if row["parameters"] == "P1"]
    if not rows:
        return f"`make gpu-bench` on {_machine(report)} timed nothing: {report['crf']['status']}."
    precisions = _distinct(row["precision"] for row in rows)
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        case = (f"{row['height']}×{row['width']}×{row['classes']}", row["texture"])
        shown = f"{milliseconds(row['frame']['median_ms'])} ({milliseconds(row['per_iteration_ms'])})"
        cells.setdefault(case, {})[row["precision"]] = shown
    lines = [[*case, *(shown.get(each, "") for each in precisions)] for case, shown in cells.items()]
    caption = (
        f"The dense CRF on {_machine(report)}, input and output in its memory: milliseconds for ten iterations and the "
        "lattices (for one iteration). `make gpu-bench`"
    )
    return f"{caption}\n\n{table(['size', '', *precisions], 'll' + 'r' * len(precisions), lines)}"


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


QUOTES: Mapping[str, Quote] = {"gpu": _gpu}
