"""Runs pictures through the FP32 graph and counts the magnitudes of its activations."""

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
    pictures: Iterable[tuple[str, FloatArray]],
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Histogram]:
    """Observe activations on a stream of pictures; memory holds those of one picture, whatever their number.

    Args:
        graph: the FP32 model.
        tensors: names of the float32 values to observe; the image input may be among them.
        pictures: names and prepared pictures [N, 3, H, W], as `CalibrationImages` gives.
        progress: called with the number of pictures done.

    Returns:
        Tensor → its histogram over all pictures, in the order asked for.

    Raises:
        CalibrationError: an activation is NaN or infinite, or there were no pictures.
        EngineError: the graph has no such value, or ONNX Runtime fails in it.
    """
    session = ActivationSession(graph, tensors)
    histograms = {name: Histogram() for name in tensors}
    number = 0
    for number, (picture, batch) in enumerate(pictures, start=1):
        for tensor, values in session.run(batch).items():
            try:
                histograms[tensor].add(values)
            except CalibrationError as exc:
                raise CalibrationError(
                    f"activation {tensor!r} is unusable on {picture} {list(batch.shape)}: {exc}. "
                    "Check the weights and the preprocessing of the model."
                ) from exc
        if progress:
            progress(number)
    if not number:
        raise CalibrationError("no pictures came to observe activations on; expected at least one")
    return histograms
