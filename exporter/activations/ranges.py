"""Activation ranges of a graph on a stream of images, and the nodes whose values do not fit FP16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import onnx

from ...arrays import FloatArray
from ...errors import CalibrationError
from ...manifest import InputSpec
from ...runtime.image import ImageSource
from ..passes.magnitudes import HALF_MAX, Magnitudes
from ..verify import photo_inputs, probe_inputs
from .session import ActivationSession, input_name

#: Safety factor, because unseen images may reach larger magnitudes. Measured with the demo's network on CamVid val: one
#: activation reaches 4.3 times the maximum on synthetic images, 2.9 times that on one training image, 1.7 times that on
#: eight.
OVERFLOW_MARGIN: Final = 8.0
#: Operators that sum whole maps: an FP16 accumulator would overflow long before the result does.
_SUMMING_OPS: Final = frozenset({"GlobalAveragePool", "ReduceMean", "ReduceSum"})


def calibration_batches(images: Sequence[ImageSource], inputs: InputSpec) -> Iterator[FloatArray]:
    """Yield preprocessed images [N, 3, H, W] float32: `images` one at a time, then synthetic ones of various sizes."""
    yield from photo_inputs(images, inputs)
    yield from probe_inputs(inputs)


def observe_ranges(graph: onnx.ModelProto, batches: Iterable[FloatArray]) -> dict[str, Magnitudes]:
    """Run every batch through the graph and record the magnitudes of each float32 value.

    Memory holds the activations of one batch at a time.

    Args:
        graph: a graph with inferred types, as `run_passes` returns it.
        batches: preprocessed images [N, 3, H, W] float32.

    Returns:
        Value name → magnitudes, for the inputs and the outputs of all nodes outside subgraphs.

    Raises:
        CalibrationError: an activation is NaN or infinite.
        EngineError: ONNX Runtime rejects the graph or fails.
    """
    names = [input_name(graph), *_float_values(graph)]
    session = ActivationSession(graph, names)
    ranges = {name: Magnitudes() for name in names}
    for number, batch in enumerate(batches, start=1):
        for name, value in session.run(batch).items():
            seen = ranges[name]
            seen.add(value)
            if not seen.max_abs < float("inf"):
                raise CalibrationError(
                    f"activation {name!r} is already NaN or infinite in FP32, on image {number} "
                    f"{list(batch.shape)}. Check the weights and the preprocessing of the model."
                )
    return ranges


def nodes_out_of_range(graph: onnx.ModelProto, ranges: Mapping[str, Magnitudes]) -> dict[str, str]:
    """Find nodes whose inputs, outputs or sums would overflow or underflow in FP16: name → reason."""
    found = {}
    for node in graph.graph.node:
        values = [name for name in (*node.input, *node.output) if name in ranges]
        reasons = (_misfit(name, ranges[name]) for name in values)
        reason = next(filter(None, reasons), None) or _sum_misfit(node, ranges)
        if reason:
            found[node.name or node.output[0]] = reason
    return found


def _misfit(name: str, seen: Magnitudes) -> str | None:
    misfit = seen.misfit(limit=HALF_MAX / OVERFLOW_MARGIN)
    return misfit and f"{name!r} {misfit}"


def _sum_misfit(node: onnx.NodeProto, ranges: Mapping[str, Magnitudes]) -> str | None:
    if node.op_type not in _SUMMING_OPS or node.input[0] not in ranges:
        return None
    source, result = ranges[node.input[0]], ranges[node.output[0]]
    terms = source.elements // max(result.elements, 1)
    if terms * source.max_abs <= HALF_MAX:
        return None
    return f"it sums {terms} values of up to {source.max_abs:.4g}, which can exceed the FP16 maximum of {HALF_MAX:.0f}"


def _float_values(graph: onnx.ModelProto) -> list[str]:
    """Names of all float32 outputs of nodes outside subgraphs."""
    typed = (*graph.graph.value_info, *graph.graph.output)
    floats = {each.name for each in typed if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return [name for node in graph.graph.node for name in node.output if name in floats]
