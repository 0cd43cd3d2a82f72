"""Report of a search as one self-contained HTML page."""

from __future__ import annotations

import base64
import importlib
import io
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import importing
from ...manifest import ClassInfo
from ..report.html import class_palette, png_url, render_page, shown_size
from . import text as text
from .plots import best_by_stage, plot_classes, plot_grid, plot_iterations
from .report import Sample, TuningReport

_JPEG_QUALITY = 85


def check_packages() -> None:
    """Import what the page takes; raises MissingDependencyError, which names the extra."""
    with importing("export", purpose="atrous.tune"):
        for name in ("jinja2", "matplotlib"):
            importlib.import_module(name)


def render_html(report: TuningReport) -> str:
    """Render the page as text, to be written as UTF-8; it has no scripts and no external resources.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    return render_page(
        resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"),
        report=report,
        fit=report.fit,
        metric=text.METRIC_NAMES[report.fit.metric],
        headline=text.headline(report),
        outcome=text.outcome(report),
        class_changes=text.class_changes(report),
        truth_held=text.truth_held(report),
        parameters=_parameters(report),
        stages=[
            (*row[:3], text.describe(row[3].candidate), row[3]) for row in best_by_stage(report) if row[3].candidate
        ],
        grid_plot=plot_grid(report),
        class_plot=plot_classes(report),
        iterations_plot=plot_iterations(report),
        rows=_class_rows(report),
        samples=[_sample_images(sample, report.classes) for sample in report.samples],
    )


def _parameters(report: TuningReport) -> list[tuple[str, float, float]]:
    """Name, value before and value found of each parameter."""
    values = (report.before.params.to_dict(), report.after.params.to_dict())
    rows = [(name, values[0][name], values[1][name]) for name in values[0]]
    return [*rows, ("iterations", report.before.iterations, report.after.iterations)]


def _class_rows(report: TuningReport) -> list[tuple[ClassInfo, float, float, float, float]]:
    """Class, its IoU without, before and after, and points gained, of those that are in a held-out mask."""
    rows = []
    for entry in report.classes:
        if report.scored[entry.id]:
            without, before, after = (
                float(column[entry.id]) for column in (report.iou_without, report.iou_before, report.iou_after)
            )
            rows.append((entry, without, before, after, 100 * (after - without)))
    return rows


def _sample_images(sample: Sample, classes: tuple[ClassInfo, ...]) -> dict[str, object]:
    """Template values of a sample: four images as `data:` URLs."""
    palette = class_palette(classes, sample.without)
    size = shown_size(sample.without)
    return {
        "title": sample.title,
        "gain": sample.gain,
        "size": size,
        "photo": _jpeg_url(sample.image, size),
        "truth": _jpeg_url(_masked(palette[sample.truth], sample.valid), size),
        "without": png_url(sample.without, palette, size),
        "after": png_url(sample.after, palette, size),
    }


def _masked(colors: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Colours [H, W, 3] with white where there is void."""
    return np.where(valid[..., None], colors, np.uint8(255))


def _jpeg_url(image: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """`data:` URL of an image [H, W, 3]; `size` is (width, height) in pixels."""
    data = io.BytesIO()
    Image.fromarray(image).resize(size).save(data, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
