"""Plots of the HTML report, as inline SVG."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ...errors import importing
from .model import LayerResult, TensorResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion, which people with any common colour blindness can tell apart.
BLUE: Final = "#0072b2"
VERMILION: Final = "#d55e00"
INK: Final = "#3d454e"

_STYLE: Final[dict[Any, Any]] = {  # matplotlib 3.11 types the keys as literals, older ones as text
    "svg.fonttype": "none",  # real text: searchable, small, in the page's own font
    "svg.hashsalt": "atrous",  # the same report is the same bytes
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa4ae",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e7eb",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_MAX_NAME: Final = 44
_NAMED_LAYERS: Final = 3
#: Width of a name as a share of the plot.
_NAME_DISTANCE: Final = 0.25
_MAX_BARS: Final = 128


def plot_sqnr(layers: Sequence[LayerResult]) -> str:
    """Plot the SQNR of each layer's output along the network, with the lowest named; empty if none was measured."""
    measured = [
        (index, layer, layer.sqnr_db)
        for index, layer in enumerate(layers, start=1)
        if layer.sqnr_db is not None and math.isfinite(layer.sqnr_db)
    ]

    def paint(axes: Axes) -> None:
        axes.plot([each[0] for each in measured], [each[2] for each in measured], color="#b8c2cc", linewidth=1)
        for label, color, face in (("INT8", BLUE, BLUE), ("kept higher", VERMILION, "white")):
            chosen = [(index, value) for index, layer, value in measured if (layer.reason is None) == (label == "INT8")]
            if chosen:
                xs, ys = zip(*chosen, strict=True)
                axes.scatter(xs, ys, s=30, color=face, edgecolors=color, linewidths=1.5, label=label, zorder=3)
        for index, layer, value in _lowest_apart(measured, len(layers) * _NAME_DISTANCE):
            in_right_half = index > len(layers) / 2
            axes.annotate(
                short_name(layer.module or layer.name),
                (index, value),
                xytext=(-8 if in_right_half else 8, -4),
                textcoords="offset points",
                ha="right" if in_right_half else "left",
                va="top",
                parse_math=False,
            )
        axes.set(xlabel="layer, in the order of the graph", ylabel="SQNR, dB", xlim=(0, len(layers) + 1))
        axes.margins(y=0.2)
        axes.legend(loc="upper right", ncols=2)

    if not measured:
        return ""
    return draw("sqnr", "SQNR of the output of each layer in dB", (10.4, 3.0), paint)


def plot_sensitivity(layers: Sequence[LayerResult]) -> str:
    """Plot bars for `layers`, the first on top: points lost alone, points gained when removed; empty without layers."""

    def paint(axes: Axes) -> None:
        rows = np.arange(len(layers))
        losses = [layer.alone_drop or 0.0 for layer in layers]
        axes.barh(rows - 0.19, losses, 0.36, color=BLUE, label="lost when only this layer is INT8")
        if any(layer.kept_gain is not None for layer in layers):
            gains = [layer.kept_gain or 0.0 for layer in layers]
            axes.barh(rows + 0.19, gains, 0.36, color=VERMILION, label="gained when all others are INT8")
        names = [short_name(layer.module or layer.name) + (" (kept)" if layer.reason else "") for layer in layers]
        axes.set_yticks(rows, names, parse_math=False)
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlabel("points of agreement with FP32")
        axes.legend(loc="lower right")

    if not layers:
        return ""
    size = (10.4, 0.9 + 0.27 * len(layers))
    return draw("sensitivity", "Points of agreement that the most sensitive layers cost", size, paint)


def plot_histogram(tensor: TensorResult, key: str) -> str:
    """Plot the histogram of |x| of one activation, logarithmic, with its threshold; `key` is unique in the page."""
    with _importing():
        from matplotlib.ticker import EngFormatter
    reach = max(tensor.max_abs, tensor.amax)

    def paint(axes: Axes) -> None:
        counts, width = _coarser(tensor)
        # Empty bins would reach below every decade.
        axes.stairs(counts, np.arange(len(counts) + 1) * width, fill=True, color="#9cc7e0", baseline=0.5)
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylim(bottom=0.5)
        axes.set_xlim(0, reach * 1.04 or 1.0)
        axes.axvline(tensor.amax, color=VERMILION, linewidth=1.6)
        in_right_part = tensor.amax > 0.6 * reach
        axes.annotate(
            f"amax {tensor.amax:.4g}",
            (tensor.amax, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if in_right_part else 5, -2),
            textcoords="offset points",
            ha="right" if in_right_part else "left",
            va="top",
            color="#a34700",
        )
        axes.set(xlabel="|x|", ylabel="values")

    return draw(key, f"Histogram of the magnitudes of {short_name(tensor.name)}", (4.6, 2.3), paint)


def short_name(name: str) -> str:
    """Shorten a name for a plot: its two ends, without unprintable characters."""
    printable = "".join(char if char.isprintable() else "\ufffd" for char in name)
    if len(printable) <= _MAX_NAME:
        return printable
    half = (_MAX_NAME - 1) // 2
    return f"{printable[:half]}…{printable[-half:]}"


def _lowest_apart(
    measured: Sequence[tuple[int, LayerResult, float]], distance: float
) -> list[tuple[int, LayerResult, float]]:
    """Entries with the lowest values whose names do not overlap."""
    chosen: list[tuple[int, LayerResult, float]] = []
    for entry in sorted(measured, key=lambda each: each[2]):
        if len(chosen) < _NAMED_LAYERS and all(abs(entry[0] - other[0]) >= distance for other in chosen):
            chosen.append(entry)
    return chosen


def _coarser(tensor: TensorResult) -> tuple[NDArray[np.int64], float]:
    """Counts up to the largest value in at most `_MAX_BARS` bins, and their width."""
    used = int(np.flatnonzero(tensor.counts).max(initial=0)) + 1
    merge = -(-used // _MAX_BARS)
    padded = np.zeros(-(-used // merge) * merge, np.int64)
    padded[:used] = tensor.counts[:used]
    return padded.reshape(-1, merge).sum(1), tensor.bin_width * merge


def _importing() -> AbstractContextManager[None]:
    return importing("export", purpose="a report")


def draw(key: str, description: str, size_inches: tuple[float, float], paint: Callable[[Axes], None]) -> str:
    """Draw a plot as inline SVG; `key` is unique in the page."""
    return draw_figure(key, description, size_inches, lambda figure: paint(figure.add_subplot()))


def draw_figure(key: str, description: str, size_inches: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Draw plots side by side as one inline SVG; arguments as in `draw`."""
    with _importing():
        import matplotlib as mpl
        from markupsafe import escape
        from matplotlib.figure import Figure as MakeFigure
    text = io.StringIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The reader's browser draws the text with its own fonts, so missing glyphs here do not matter.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        # Not pyplot, which keeps figures alive and looks for a window system.
        figure = MakeFigure(figsize=size_inches, layout="constrained")
        paint(figure)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Ids are unique within one SVG only, and several SVGs share the page.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    label = f' role="img" aria-label="{escape(description)}"'
    return re.sub(r' width="[^"]*" height="[^"]*"', lambda _: label, svg, count=1)
