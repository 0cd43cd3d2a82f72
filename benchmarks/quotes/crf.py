"""The dense CRF on the CPU beside pydensecrf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .results import Quote, Results, number, table

_ONE, _TWO = "atrous, threads 1", "atrous, threads 2"
_DROP_IN = "atrous, drop-in"
_FRACTIONS = ", unorm16"
#: A new `DenseCRF`, another image in a kept one, the same image again, and another with a class floor.
_CALLS = ("first", "next", "same", "floor")


def _range(values: Sequence[float], decimals: int) -> str:
    low, high = (number(value, decimals) for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def _crf_speedup(results: Results) -> str:
    cases = results["crf"]["cases"] + results["crf-513x513-P1"]["cases"]
    return f"{_range([case['rows'][_TWO]['speedup_first'] for case in cases], 0)} times as fast"


def _crf_difference(results: Results) -> str:
    worst = max(case["max_difference"] for case in results["crf"]["cases"])
    return f"max |ΔQ| {worst:.1e}".replace("e-0", "e-")


def _crf_most_timed(results: Results) -> str:
    cases = results["crf-513x513-P1"]["cases"]
    return " (".join(
        f"{_range([case['rows'][_TWO + storage]['speedup_first'] for case in cases], 1)} times as fast{end}"
        for storage, end in (("", " on two cores"), (_FRACTIONS, " with 16-bit fractions)"))
    )


def _crf_seven(results: Results) -> str:
    textured, plain = (
        next(case["rows"] for case in results["crf-513x513-P1"]["cases"] if case["picture"] == picture)
        for picture in ("textured", "plain")
    )

    def row(name: str) -> list[str]:
        cells = [
            f"{rows[name][key]['median_ms']:.0f} ms ({number(rows[name][f'speedup_{key}'], 1)}×)"
            if key in rows[name]
            else ""
            for rows in (textured, plain)
            for key in _CALLS
        ]
        return [name.removeprefix("atrous, "), *cells]

    def whole(name: str) -> list[str]:
        """Of a contender that has no next call."""
        cells = []
        for rows in (textured, plain):
            speedup = f" ({number(rows[name]['speedup_first'], 1)}×)" if "speedup_first" in rows[name] else ""
            cells += [f"{rows[name]['total']['median_ms']:.0f} ms{speedup}", *[""] * (len(_CALLS) - 1)]
        return [name.removeprefix("atrous, "), *cells]

    head = ["", *(f"{picture}, {call}" for picture in ("textured", "plain") for call in _CALLS)]
    lines = [whole("pydensecrf"), whole(_DROP_IN)]
    lines += [row(name + storage) for storage in ("", _FRACTIONS) for name in (_ONE, _TWO)]
    return table(head, "l" + "r" * (len(head) - 1), lines)


def _crf_table(results: Results) -> str:
    head = ["size", "", "1000 vertices", "pydensecrf", "1 thread", "2 threads", "2 threads, next", "unorm16, next"]
    head += ["construction", "iteration", "MB"]
    return table(head, "llrrrrrrrrr", [_crf_row(case) for case in results["crf"]["cases"]])


def _crf_row(case: Mapping[str, Any]) -> list[str]:
    rows = case["rows"]
    peer, one, two, narrow = rows["pydensecrf"], rows[_ONE], rows[_TWO], rows[_TWO + _FRACTIONS]

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
        total(narrow, "next", "speedup_next"),
        part("construction_ms"),
        part("iteration_ms"),
        " / ".join(f"{row['peak_mb']:.0f}" for row in (peer, two, narrow)),
    ]


def _crf_fractions(results: Results) -> str:
    head = ["", "a next image, 1 thread", "2 threads", "peak memory"]
    cases = [case for case in results["crf"]["cases"] if case["params"] == "P1"]
    return table(head, "lrrr", [_fractions_row(case) for case in cases])


def _fractions_row(case: Mapping[str, Any]) -> list[str]:
    """Single precision → fractions, and the ratio."""

    def change(name: str, value: Callable[[Mapping[str, Any]], float], unit: str) -> str:
        wide, narrow = (value(case["rows"][each]) for each in (name, name + _FRACTIONS))
        return f"{wide:.0f} → {narrow:.0f} {unit} ({narrow / wide:.2f})"

    return [
        f"{case['size'].replace('x', '×')} {case['picture']}",
        *(change(each, lambda row: row["next"]["median_ms"], "ms") for each in (_ONE, _TWO)),
        change(_TWO, lambda row: row["peak_mb"], "MB"),
    ]


QUOTES: Mapping[str, Quote] = {
    "crf": _crf_table,
    "crf-speedup": _crf_speedup,
    "crf-513": _crf_most_timed,
    "crf-seven": _crf_seven,
    "crf-difference": _crf_difference,
    "crf-fractions": _crf_fractions,
}
