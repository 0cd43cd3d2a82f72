"""Plots of the page on a search, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from ..report.plots import BLUE, INK, VERMILION, draw, draw_figure, short_name
from .candidate import Standing
from .report import TuningReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Share of the largest change from which a cell is dark.
_DARK: Final = 0.6


def plot_grid(report: TuningReport) -> str:
    """Heat maps of the grid, one for each σ_rgb: points gained over σ_xy and w_b; bracketed where harm is too much."""
    cells = [trial.standing for trial in report.trials if trial.stage == "grid"]
    by_place = {_place(each): each for each in cells}
    widths, colors, weights = (sorted({place[axis] for place in by_place}) for axis in range(3))
    reach = max((abs(each.gain) for each in cells if math.isfinite(each.gain)), default=0.0) or 1.0

    def paint(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("gain", [VERMILION, "#ffffff", BLUE])
        panels = figure.subplots(1, len(colors), squeeze=False, sharey=True)[0]
        for axes, sigma_rgb in zip(panels, colors, strict=True):
            gains = np.array([[by_place[x, sigma_rgb, y].gain for x in widths] for y in weights])
            axes.pcolormesh(gains, cmap=shades, vmin=-reach, vmax=reach, edgecolors="#ffffff", linewidth=2)
            for row, column in np.ndindex(gains.shape):
                standing = by_place[widths[column], sigma_rgb, weights[row]]
                text = f"{standing.gain:+.2f}".replace("-", "−")
                is_dark = abs(standing.gain) > _DARK * reach
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"({text})" if standing.harm > report.fit.no_harm else text,
                    ha="center",
                    va="center",
                    color="white" if is_dark else INK,
                )
            axes.set_title(f"σ_rgb {sigma_rgb:g}", parse_math=False)
            axes.set_xticks(np.arange(len(widths)) + 0.5, [f"{each:g}" for each in widths])
            axes.set_yticks(np.arange(len(weights)) + 0.5, [f"{each:g}" for each in weights])
            axes.set_xlabel("σ_xy, px", parse_math=False)
            axes.grid(visible=False)
        panels[0].set_ylabel("w_b", parse_math=False)

    if not by_place:
        return ""
    return draw_figure("grid", "Heat maps of the points gained on the grid", (10.4, 3.2), paint)


def plot_classes(report: TuningReport) -> str:
    """Bars for each class: points of IoU against no CRF, on the held-out images."""
    indices = [index for index in range(len(report.classes)) if report.scored[index]]

    def paint(axes: Axes) -> None:
        rows = np.arange(len(indices))
        for offset, iou, color, label in (
            (-0.19, report.iou_before, "#b8c2cc", "the bundle's CRF before"),
            (0.19, report.iou_after, BLUE, "the CRF that was found"),
        ):
            changes = 100 * (iou - report.iou_without)[indices]
            axes.barh(rows + offset, changes, 0.36, color=color, label=label)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.axvline(-report.fit.no_harm, color=VERMILION, linewidth=1.2, linestyle="--", label="limit of harm")
        axes.set_yticks(rows, [short_name(report.classes[index].name) for index in indices], parse_math=False)
        axes.set_ylim(len(indices) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("points of IoU against no CRF")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)

    return draw("classes", "Points of IoU that each class gains", (10.4, 1.2 + 0.36 * len(indices)), paint)


def plot_iterations(report: TuningReport) -> str:
    """Points gained against seconds of an image, by the number of iterations; the one that was taken is filled."""

    def paint(axes: Axes) -> None:
        seconds = [each.seconds for each in report.iterations]
        gains = [each.standing.gain for each in report.iterations]
        axes.plot(seconds, gains, color="#b8c2cc", linewidth=1)
        for each in report.iterations:
            is_chosen = each.standing.candidate == report.after
            axes.scatter(each.seconds, each.standing.gain, s=42, color=BLUE if is_chosen else "white", edgecolors=BLUE,
                         linewidths=1.5, zorder=3)  # fmt: skip
            axes.annotate(
                _iterations(each.standing),
                (each.seconds, each.standing.gain),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
            )
        axes.set(xlabel="seconds an image, one thread, lattices included", ylabel="points gained", xlim=(0, None))
        axes.margins(y=0.25)

    return draw("iterations", "Points gained against seconds, by the number of iterations", (10.4, 3.2), paint)


def best_by_stage(report: TuningReport) -> Sequence[tuple[str, int, int, Standing]]:
    """Stage, number of candidates, number of images and the best of each stage, in order."""
    stages = dict.fromkeys(trial.stage for trial in report.trials)
    rows = []
    for stage in stages:
        tried = {trial.standing.candidate: trial.standing for trial in report.trials if trial.stage == stage}
        best = max(tried.values(), key=lambda each: each.merit(report.fit.no_harm))
        rows.append((stage, len(tried), best.images, best))
    return rows


def _place(standing: Standing) -> tuple[float, float, float]:
    assert standing.candidate is not None  # noqa: S101 - the grid is of candidates
    params = standing.candidate.params
    return params.bilateral_sigma_xy_px, params.bilateral_sigma_rgb, params.bilateral_weight


def _iterations(standing: Standing) -> str:
    return str(standing.candidate.iterations) if standing.candidate else ""
