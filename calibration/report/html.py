"""Report of a quantization as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import math
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...arrays import Labels
from ...errors import importing
from ...manifest import ClassInfo
from . import text as text
from .model import QuantizationReport, Sample, TensorResult
from .plots import plot_histogram, plot_sensitivity, plot_sqnr

_MAX_BARS: Final = 20
_MAX_HISTOGRAMS: Final = 12
_MAX_SAMPLE_PX: Final = 480
#: Magenta: unlikely as the colour of a class, and different from grey in lightness too.
_DIFFERENT: Final = (214, 0, 110)
_GREYS: Final = 32


def render_html(report: QuantizationReport) -> str:
    """Render the page as text, to be written as UTF-8; it has no scripts and no external resources.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    sensitive = text.most_sensitive(report, _MAX_BARS)
    return render_page(
        resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"),
        report=report,
        headline=text.headline(report),
        budget_outcome=text.budget_outcome(report),
        masks_held=text.masks_held(report),
        kept=[layer for layer in report.layers if layer.reason],
        sqnr_plot=plot_sqnr(report.layers),
        sensitive=sensitive,
        sensitivity_plot=plot_sensitivity(sensitive),
        histograms=[
            (tensor, plot_histogram(tensor, f"histogram{index}")) for index, tensor in enumerate(_worst_tensors(report))
        ],
        samples=[_sample_images(sample, report.classes) for sample in report.samples],
    )


def render_page(template: str, **values: object) -> str:
    """Render a page from its Jinja template; it also gets `style` and the filters of numbers.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    with importing("export", purpose="a report"):
        from jinja2 import Environment, StrictUndefined
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": text.percent,
        "number": text.number,
        "change": text.change,
        "decibels": text.decibels,
        "megabytes": text.megabytes,
    }
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return environment.from_string(template).render(style=style, **values)


def _worst_tensors(report: QuantizationReport) -> list[TensorResult]:
    finite = [tensor for tensor in report.tensors if math.isfinite(tensor.sqnr_db)]
    return sorted(finite, key=lambda tensor: tensor.sqnr_db)[:_MAX_HISTOGRAMS]


def _sample_images(sample: Sample, classes: tuple[ClassInfo, ...]) -> dict[str, object]:
    """Template values of a sample: three images as `data:` URLs, and the share of equal labels."""
    palette = class_palette(classes, sample.fp32_labels)
    different = sample.fp32_labels != sample.int8_labels
    size = shown_size(different)
    return {
        "title": sample.title,
        "agreement": 1.0 - float(different.mean()),
        "size": size,
        "fp32": png_url(sample.fp32_labels, palette, size),
        "int8": png_url(sample.int8_labels, palette, size),
        "difference": png_url(*_difference(sample.image, different), size),
    }


def class_palette(classes: tuple[ClassInfo, ...], labels: Labels) -> NDArray[np.uint8]:
    """Colours [256 or 65536, 3] uint8 of all values that labels may have."""
    palette = np.zeros((1 << 8 * labels.itemsize, 3), np.uint8)
    palette[: len(classes)] = [entry.color for entry in classes]
    return palette


def shown_size(image: NDArray[Any]) -> tuple[int, int]:
    """Width and height in pixels at which an image [H, W, ...] is in a page."""
    height, width = image.shape[:2]
    scale = min(1.0, _MAX_SAMPLE_PX / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _difference(image: NDArray[np.uint8], different: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image in pale grey with differing pixels highlighted: palette indices [H, W] uint8, palette [256, 3] uint8."""
    grey = np.asarray(Image.fromarray(image).convert("L")) // (256 // _GREYS)
    palette = np.zeros((256, 3), np.uint8)
    palette[:_GREYS] = np.linspace(110, 245, _GREYS)[:, None]
    palette[_GREYS] = _DIFFERENT
    return np.where(different, np.uint8(_GREYS), grey), palette


def png_url(indices: Labels, palette: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """`data:` URL of a PNG, with a palette where it has up to 256 colours; `size` is (width, height) in pixels."""
    has_palette = indices.dtype == np.uint8
    image = Image.fromarray(indices if has_palette else palette[indices]).resize(size, Image.Resampling.NEAREST)
    if has_palette:
        image.putpalette(palette.tobytes())
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
