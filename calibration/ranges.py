"""The ranges of a graph's activations: from an earlier calibration where one fits, else observed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from ..errors import CalibrationError
from .cache import Calibration, Range, load_calibration
from .collect import collect_histograms
from .histogram import Histogram
from .images import CalibrationImages
from .options import Method
from .thresholds import choose_amax

_logger = logging.getLogger(__name__)


def known_ranges(
    path: Path,
    tensors: Sequence[str],
    pictures: CalibrationImages,
    *,
    model_sha256: str,
    method: Method,
    required: bool,
) -> Calibration | None:
    """The ranges of an earlier calibration, if it was of this model, with these pictures and this method.

    Args:
        path: where it is kept.
        tensors: names of the activations that need a range.
        pictures: to be calibrated with.
        model_sha256: of the FP32 graph.
        method: how ranges are to be chosen.
        required: whether it is an error that it does not fit, or None is the answer.

    Raises:
        CalibrationError: it is required, and cannot be read or is of something else.
    """
    if not (required or path.exists()):
        return None
    try:
        found = load_calibration(path, model_sha256=model_sha256, data_sha256=pictures.data_sha256, method=method)
        _require_ranges(path, found, tensors)
    except CalibrationError as exc:
        if required:
            raise
        _logger.info("observing activations: %s", exc)
        return None
    _logger.info("took the ranges from %s, which is of the same model, pictures and method", path)
    return found


def _require_ranges(path: Path, found: Calibration, tensors: Sequence[str]) -> None:
    missing = next((name for name in tensors if name not in found.ranges), None)
    if missing:
        raise CalibrationError(f"{path} has no range for the activation {missing!r}. Remove it to calibrate again.")


def choose_ranges(
    graph: onnx.ModelProto,
    tensors: Sequence[str],
    pictures: CalibrationImages,
    *,
    model_sha256: str,
    method: Method,
    progress: Callable[[int], None],
) -> tuple[Calibration, Mapping[str, Histogram]]:
    """Run the pictures through the FP32 graph and choose a range for each tensor; also gives what was seen.

    Raises:
        CalibrationError: an activation is NaN or infinite, or too many pictures cannot be read.
        EngineError: ONNX Runtime fails in the graph.
    """
    histograms = collect_histograms(graph, tensors, pictures, progress=progress)
    ranges = {name: Range(choose_amax(each, method), each.max_abs) for name, each in histograms.items()}
    observed = len(pictures.readable)
    return Calibration(model_sha256, pictures.data_sha256, method, observed, ranges), histograms
