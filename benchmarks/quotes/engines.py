"""Building engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .results import Quote, Results, table


def _engine_runs(results: Results) -> dict[tuple[str, str], dict[str, Any]]:
    return {(run["form"], run["precision"]): run for run in results["engine"]["runs"]}


def _engine_times(results: Results) -> str:
    runs = _engine_runs(results)
    precisions = ("fp32", "fp16", "int8")
    height, width = results["engine"]["size"]
    # What the benchmark asks for, on the grid of the network: multiples of 16.
    titles = {"one size": f"{height}×{width}", "range": "256×256 … 528×528 … 1040×1040"}
    rows = [[title, *(_seconds(runs[form, precision]) for precision in precisions)] for form, title in titles.items()]
    return table(["graph", *(precision.upper() for precision in precisions)], "lrrr", rows)


def _seconds(run: Mapping[str, Any]) -> str:
    whole, in_tensorrt = (run[part]["median_ms"] / 1e3 for part in ("build_engine", "in_tensorrt"))
    return f"{whole:.1f} ({in_tensorrt:.1f})"


def _engine_layers(results: Results) -> str:
    runs = _engine_runs(results)
    int8, fp16 = runs["one size", "int8"], runs["one size", "fp16"]
    megabytes = [f"{run['memory_bytes']['activation'] / 1e6:.0f}" for run in (int8, fp16)]
    return (
        f"The INT8 engine has {int8['layers']} layers where the FP16 one has {fp16['layers']}, "
        f"and its activations take {megabytes[0]} MB instead of {megabytes[1]}"
    )


QUOTES: Mapping[str, Quote] = {
    "engine-times": _engine_times,
    "engine-layers": _engine_layers,
}
