"""Runs images through the FP32 graph and counts the magnitudes of its activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx

from ..arrays import FloatArray
from ..errors import CalibrationError
from ..exporter.activations.session import ActivationSession
from .histogram import Histogram


def collect_histograms(
    graph: onnx.ModelProto,
    tensors: Sequence[str],
    images: Iterable[tuple[str, FloatArray]],
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Histogram]:
    """Observe activations on a stream of images; memory holds the activations of one image at a time.

    Args:
        graph: the FP32 model.
        tensors: names of the float32 values to observe; the image input may be among them.
        images: names and preprocessed images [N, bands, H, W] float32, as `CalibrationImages` yields.
        progress: called with the number of images processed.

    Returns:
        Tensor → its histogram over all images, in the order of `tensors`.

    Raises:
        CalibrationError: an activation is NaN or infinite, or `images` is empty.
        EngineError: the graph has no such value, or ONNX Runtime fails.
    """
    session = ActivationSession(graph, tensors)
    histograms = {name: Histogram() for name in tensors}
    number = 0
    for number, (image, batch) in enumerate(images, start=1):
        for tensor, values in session.run(batch).items():
            try:
                histograms[tensor].add(values)
            except CalibrationError as exc:
                raise CalibrationError(
                    f"activation {tensor!r} is invalid on {image} {list(batch.shape)}: {exc}. "
                    "Check the weights and the preprocessing of the model."
                ) from exc
        if progress:
            progress(number)
    if not number:
        raise CalibrationError("no calibration images; expected at least one")
    return histograms
