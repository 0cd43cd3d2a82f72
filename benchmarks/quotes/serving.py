"""The server: beside the segmenter in process, beside a plain handler, under overload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .results import Quote, Results, milliseconds, number, percent, table


def _serve(results: Results) -> str:
    """The command, three tables and what overload did."""
    report = results["serve"]
    parts = report["parts"]
    height, width = report["size"]
    machine = report["machine"]
    caption = (
        f"`{report['command'].partition(' --only')[0]}` on loopback, {height}×{width}, {machine['cores']} cores of an "
        f"{machine['cpu']}, clients and server on the same cores; every answer compared with a segmenter's."
    )
    text = [
        caption,
        _overhead(parts),
        table(
            ["", "clients", "p50, ms", "p99, ms", "images a second", "of a segmenter in process, in turns"],
            "lrrrrr",
            [
                _rate(title, row)
                for title, key in (("labels", "tensors"), ("with the CRF", "crf"))
                for row in parts[key]
            ],
        ),
        _overload(parts["overload"]),
        "A PNG in, a PNG of labels out:",
        table(
            ["server", "clients", "p50, ms", "p99, ms", "images a second"],
            "lrrrr",
            [
                [row["server"], str(row["clients"]), *_percentiles(row), number(row["per_second"], 1)]
                for row in parts["files"]
            ],
        ),
    ]
    return "\n\n".join(text)


def _overhead(parts: Mapping[str, Any]) -> str:
    rows = []
    for title, key in (("labels", "overhead"), ("with the CRF", "overhead_crf")):
        part = parts[key]
        quartiles = " to ".join(milliseconds(value) for value in part["paired"]["iqr_ms"])
        times = [milliseconds(part[each]["median_ms"]) for each in ("http", "segmenter")]
        rows.append([title, *times, milliseconds(part["p50_difference_ms"]), quartiles])
    head = ["one client, in turns with a segmenter; ms", "request, p50", "segmenter, p50", "difference of p50"]
    return table([*head, "quartiles of paired differences"], "lrrrr", rows)


def _rate(title: str, row: Mapping[str, Any]) -> list[str]:
    share = number(row["of_segmenter"]["median"], 2)
    return [title, str(row["clients"]), *_percentiles(row), number(row["per_second"], 1), share]


def _overload(part: Mapping[str, Any]) -> str:
    memory = part["resident_mb"]
    return (
        f"Overload, {number(part['arrivals_per_second'], 0)} requests a second for {number(part['seconds'], 0)} s, "
        f"four times what it manages: {part['requests']} answered, {part['wrong']} of them wrong or failed; "
        f"{part['refused']} refused, {percent(part['refused_within_50_ms'], 1)} of these within 50 ms (p50 "
        f"{milliseconds(part['refused_p50_ms'])} ms, p99 {milliseconds(part['refused_p99_ms'])} ms, the slowest "
        f"{milliseconds(part['refused_max_ms'])} ms). Resident memory was {memory['before']} MB before, and at most "
        f"{memory['most_in_first_half']} and {memory['most_in_second_half']} MB in the first and the second half."
    )


def _percentiles(row: Mapping[str, Any]) -> tuple[str, str]:
    return milliseconds(row["p50_ms"]), milliseconds(row["p99_ms"])


QUOTES: Mapping[str, Quote] = {"serve": _serve}
