"""The plot of `atrous bench`: a bar for each contender, its stages side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from ..errors import importing

if TYPE_CHECKING:
    from ..runtime.benchmark import Row

# Okabe and Ito's colours, told apart by people with any common kind of colour blindness.
_COLORS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
_SUFFIXES: Final = (".png", ".svg")
_BAR_INCHES: Final = 0.45


def check_plot(path: Path) -> None:
    """Check that the plot can be drawn, before minutes go into measuring.

    Raises:
        typer.BadParameter: another suffix than .png or .svg, or no such folder.
        MissingDependencyError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise typer.BadParameter(f"--plot writes {' or '.join(_SUFFIXES)}; got {path.name!r}")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"--plot: there is no folder {path.parent}")
    with importing("bench", purpose="--plot"):
        import matplotlib  # noqa: F401, ICN001 - only whether it is there


def draw(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Median milliseconds of the stages, one after the other, what lies between them in grey, and a mark at p99."""
    with importing("bench", purpose="--plot"):
        from matplotlib.figure import Figure
    stages = list(dict.fromkeys(stage for row in rows for stage in row.stages))
    colors = {stage: _COLORS[index % len(_COLORS)] for index, stage in enumerate(stages)}
    figure = Figure(figsize=(9, 1.4 + _BAR_INCHES * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(rows):
        left = 0.0
        for stage, latency in row.stages.items():
            axes.barh(position, latency.p50_ms, left=left, color=colors[stage])
            left += latency.p50_ms
        rest = max(0.0, row.end_to_end.p50_ms - left)
        axes.barh(position, rest, left=left, color="#c8ced4")
        axes.plot([row.end_to_end.p99_ms], [position], marker="|", markersize=12, color="#3d454e")
    axes.set_yticks(range(len(rows)), [row.contender.label for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a picture: medians of the stages; mark: p99 end to end")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [axes.barh([0], [0], color=color) for color in (*colors.values(), "#c8ced4")]
    axes.legend(handles, [*colors, "between stages"], loc="best", frameon=False)
    figure.savefig(path, dpi=150)
