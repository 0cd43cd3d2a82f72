"""Reading results, and writing numbers and tables as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Quote = Callable[["Results"], str]


class Results:
    """The JSON files in a folder of results, by their names without suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> dict[str, Any]:
        return json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))

    def matching(self, pattern: str) -> list[dict[str, Any]]:
        """All whose name is like the pattern, in order of their names."""
        return [self[path.stem] for path in sorted(self._folder.glob(f"{pattern}.json"))]


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """With a minus, or also a plus, as in print."""
    return f"{value:{'+' if sign else ''}.{decimals}f}".replace("-", "−")


def milliseconds(value: float) -> str:
    """To three digits, never rounding before the decimal point."""
    return number(value, 2 if value < 10 else 1 if value < 100 else 0)


def percent(fraction: float, decimals: int) -> str:
    """A share of 1."""
    return f"{number(fraction * 100, decimals)} %"


def table(head: Sequence[str], align: str, rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; `align` has an l or r for each column."""
    rules = {"l": "---", "r": "---:"}
    ruler = "|".join(rules[each] for each in align)
    head_line, *lines = ("|".join(f" {cell} " if cell else " " for cell in cells) for cells in (head, *rows))
    return "\n".join(f"|{line}|" for line in (head_line, ruler, *lines))


def short_version(report: Mapping[str, Any], package: str) -> str:
    """Its first two parts."""
    return ".".join(report["machine"]["versions"][package].split(".")[:2])
