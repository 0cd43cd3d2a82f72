"""The dense CRF on the CPU beside pydensecrf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .results import Quote, Results, number, table

_ONE, _TWO = "atrous, threads 1", "atrous, threads 2"


def _range(values: Sequence[float], decimals: int) -> str:
    low, high = (number(value, decimals) for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def _crf_speedup(results: Results) -> str:
    cases = results["crf"]["cases"] + results["crf-513x513-P1"]["cases"]
    return f"{_range([case['rows'][_TWO]['speedup_first'] for case in cases], 0)} times as fast"


def _crf_difference(results: Results) -> str:
    worst = max(case["max_difference"] for case in results["crf"]["cases"])
    return f"max |ΔQ| {worst:.1e}".replace("e-0", "e-")


def _crf_alone(results: Results) -> str:
    """The one case that was timed with nothing else running, and the same among the others."""
    idle = results["crf-513x513-P1"]["cases"]
    busy = [case for case in results["crf"]["cases"] if (case["size"], case["params"]) == ("513x513x21", "P1")]
    alone, shared = (_range([case["rows"][_TWO]["speedup_first"] for case in cases], 1) for cases in (idle, busy))
    return f"{alone} times as fast on two idle cores ({shared} on busy ones)"


def _crf_idle(results: Results) -> str:
    textured, plain = (
        next(case["rows"] for case in results["crf-513x513-P1"]["cases"] if case["picture"] == picture)
        for picture in ("textured", "plain")
    )

    def seconds(name: str) -> str:
        first, second = (f"{rows[name]['total']['median_ms'] / 1e3:.2f}" for rows in (textured, plain))
        return f"{first} s textured and {second} s plain"

    def speedups(name: str, key: str) -> str:
        return " and ".join(number(rows[name][key], 1) for rows in (textured, plain))

    return (
        f"takes {seconds(_TWO)} on two threads, {speedups(_TWO, 'speedup_first')} times as fast as pydensecrf; "
        f"on one thread {seconds(_ONE)}, {speedups(_ONE, 'speedup_first')} times as fast; "
        f"and a next picture of that size on two threads is {speedups(_TWO, 'speedup_next')} times as fast"
    )


def _crf_table(results: Results) -> str:
    head = ["size", "", "1000 vertices", "pydensecrf", "1 thread", "2 threads", "2 threads, next"]
    head += ["construction", "iteration", "MB"]
    return table(head, "llrrrrrrrr", [_crf_row(case) for case in results["crf"]["cases"]])


def _crf_row(case: Mapping[str, Any]) -> list[str]:
    rows = case["rows"]
    peer, one, two = rows["pydensecrf"], rows[_ONE], rows[_TWO]

    def total(row: Mapping[str, Any], key: str = "total", speedup: str = "speedup_first") -> str:
        return f"{row[key]['median_ms'] / 1e3:.2f} ({number(row[speedup], 1)}×)"

    def part(key: str) -> str:
        return " / ".join(f"{row[key]:.0f}" for row in (peer, one, two))

    return [
        case["size"].replace("x", "×"),
        f"{case['params']} {case['picture']}",
        f"{case['vertices'] / 1e3:,.0f}",
        f"{peer['total']['median_ms'] / 1e3:.2f}",
        total(one),
        total(two),
        total(two, "next", "speedup_next"),
        part("construction_ms"),
        part("iteration_ms"),
        f"{peer['peak_mb']:.0f} / {two['peak_mb']:.0f}",
    ]


QUOTES: Mapping[str, Quote] = {
    "crf": _crf_table,
    "crf-speedup": _crf_speedup,
    "crf-513": _crf_alone,
    "crf-idle": _crf_idle,
    "crf-difference": _crf_difference,
}
