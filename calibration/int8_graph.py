"""INT8 graph of a quantization plan: Q/DQ inserted, biases split off, and the rest in FP16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import onnx

from ..exporter.activations.ranges import calibration_batches, nodes_out_of_range, observe_ranges
from ..exporter.passes import KeptNode
from ..manifest import InputSpec
from ..runtime.image import ImageSource
from .plan import QuantizationPlan
from .qdq import HALF_OPSET, halve_rest, opset_of, quantize_graph, usable_plan, wide_layers

#: Number of images with which `exporter.activations.ranges.OVERFLOW_MARGIN` was measured.
_MAX_IMAGES: Final = 8


@dataclass(frozen=True, eq=False)
class GraphQuantizer:
    """Applies quantization plans to one FP32 graph.

    Attributes:
        graph: the FP32 graph.
        amax: tensor → magnitude that maps to 127.
        misfits: nodes that must stay FP32 when the rest becomes FP16, with the reasons; None if everything outside INT8
            stays FP32.
    """

    graph: onnx.ModelProto
    amax: Mapping[str, float]
    misfits: Mapping[str, str] | None

    @property
    def rest(self) -> Literal["fp16", "fp32"]:
        """Precision of the nodes that are not INT8."""
        return "fp32" if self.misfits is None else "fp16"

    def make(self, plan: QuantizationPlan) -> tuple[onnx.ModelProto, tuple[KeptNode, ...]]:
        """Apply a plan; returns the graph, and the nodes in it that are FP32 although the rest is FP16."""
        graph = quantize_graph(self.graph, plan, self.amax)
        if self.misfits is None:
            return graph, ()
        usable = usable_plan(plan, self.amax)
        return halve_rest(graph, {**wide_layers(usable, self.amax), **self.misfits})


def fp16_misfits(graph: onnx.ModelProto, images: Sequence[ImageSource], inputs: InputSpec) -> dict[str, str] | None:
    """Find nodes whose values do not fit FP16, as `add_fp16` does, on up to eight of `images` and on synthetic ones.

    Returns:
        Node → reason; None if the graph's opset does not allow FP16 scales.

    Raises:
        CalibrationError: an activation is NaN or infinite.
        EngineError: ONNX Runtime fails.
    """
    if opset_of(graph) < HALF_OPSET:
        return None
    few = images[:: -(-len(images) // _MAX_IMAGES)]
    return nodes_out_of_range(graph, observe_ranges(graph, calibration_batches(few, inputs)))
