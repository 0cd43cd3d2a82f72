"""GPUs: that nothing has run on one, or what `make gpu-check` and `make gpu-bench` found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .results import Quote, Results, milliseconds, table

_NOTHING_RAN = (
    "**None of it has run on a GPU yet**: kernels and launch sequences are checked on an emulator, bit for bit where "
    "that is possible, and engines are built but not run. `make gpu-check` is ready for whoever has one."
)


def _gpu(results: Results) -> str:
    checks = map(_check, results.matching("gpu_*_check"))
    benchmarks = map(_benchmark, results.matching("gpu_*_bench"))
    return "\n\n".join([*checks, *benchmarks]) or _NOTHING_RAN


def _check(report: Mapping[str, Any]) -> str:
    """Every step of the check by its outcome."""
    outcomes: dict[str, list[str]] = {}
    for step, result in report["steps"].items():
        outcomes.setdefault(result["status"], []).append(step)
    said = [f"{outcome}: {', '.join(steps)}" for outcome, steps in outcomes.items()]
    return f"`make gpu-check` on {_machine(report)}: {'; '.join(said)}."


def _machine(report: Mapping[str, Any]) -> str:
    environment = report["environment"]
    return f"{environment['gpu']} (compute capability {environment['compute_capability']})"


def _benchmark(report: Mapping[str, Any]) -> str:
    """Whole frames at the default parameters: a row for each scene, a column for each that computed it."""
    crf = report["steps"]["crf"]
    rows = [row for row in crf["rows"] if row["parameters"] == "P1"]
    if not rows:
        return f"`make gpu-bench` on {_machine(report)} timed nothing: {crf['status']}."
    contenders = list(dict.fromkeys(map(_contender, rows)))
    scenes: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        scene = (f"{row['height']}×{row['width']}×{row['classes']}", row["texture"])
        scenes.setdefault(scene, {})[_contender(row)] = _frame(row)
    lines = [[*scene, *(cells.get(each, "") for each in contenders)] for scene, cells in scenes.items()]
    caption = (
        f"The dense CRF on {_machine(report)}, probabilities and labels in its memory, and on the CPU beside it: "
        "milliseconds for ten iterations with all that comes before them. `make gpu-bench`"
    )
    return f"{caption}\n\n{table(['size', '', *contenders], 'll' + 'r' * len(contenders), lines)}"


def _contender(row: Mapping[str, Any]) -> str:
    return row["peer"] if "peer" in row else f"GPU, {row['storage']}"


def _frame(row: Mapping[str, Any]) -> str:
    if "outcome" in row:  # `not run: …`, `wrong result, …`
        return re.split("[:,]", row["outcome"])[0]
    frame = row["frame"] if "peer" in row else row["frame"]["graph"]
    return milliseconds(frame["median_ms"])


QUOTES: Mapping[str, Quote] = {"gpu": _gpu}
