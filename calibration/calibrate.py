"""Activation ranges of a graph: reused from an earlier calibration if it matches, otherwise observed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from ..errors import CalibrationError
from .activation_histograms import collect_histograms
from .calibration import Calibration, Range, load_calibration
from .histogram import Histogram
from .images import CalibrationImages
from .options import Method
from .thresholds import choose_amax

_logger = logging.getLogger(__name__)


def known_ranges(
    path: Path,
    tensors: Sequence[str],
    images: CalibrationImages,
    *,
    model_sha256: str,
    method: Method,
    required: bool,
) -> Calibration | None:
    """Load the ranges of an earlier calibration if it used this model, these images and this method.

    Args:
        path: the calibration file.
        tensors: names of the activations that need a range.
        images: the calibration set.
        model_sha256: hash of the FP32 graph.
        method: chooses the thresholds.
        required: raise if the calibration does not match, instead of returning None.

    Raises:
        CalibrationError: `required`, and the file cannot be read or does not match.
    """
    if not (required or path.exists()):
        return None
    try:
        found = load_calibration(path, model_sha256=model_sha256, data_sha256=images.data_sha256, method=method)
        _require_ranges(path, found, tensors)
    except CalibrationError as exc:
        if required:
            raise
        _logger.info("calibrating again: %s", exc)
        return None
    _logger.info("reusing the activation ranges of %s: same model, images and method", path)
    return found


def _require_ranges(path: Path, found: Calibration, tensors: Sequence[str]) -> None:
    missing = next((name for name in tensors if name not in found.ranges), None)
    if missing:
        raise CalibrationError(f"{path} has no range for the activation {missing!r}. Remove it to calibrate again.")


def choose_ranges(
    graph: onnx.ModelProto,
    tensors: Sequence[str],
    images: CalibrationImages,
    *,
    model_sha256: str,
    method: Method,
    progress: Callable[[int], None],
) -> tuple[Calibration, Mapping[str, Histogram]]:
    """Run the images through the FP32 graph and choose a range for each tensor; also return the histograms.

    Raises:
        CalibrationError: an activation is NaN or infinite, or too many images cannot be read.
        EngineError: ONNX Runtime fails.
    """
    histograms = collect_histograms(graph, tensors, images, progress=progress)
    ranges = {name: Range(choose_amax(each, method), each.max_abs) for name, each in histograms.items()}
    observed = len(images.readable)
    return Calibration(model_sha256, images.data_sha256, method, observed, ranges), histograms
