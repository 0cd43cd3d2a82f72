"""From a plan to the INT8 graph that is written: Q/DQ, biases apart, and the rest in FP16."""

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
from .qdq import HALF_OPSET, halve_rest, opset_of, quantize_graph

#: What `exporter.activation_ranges.OVERFLOW_MARGIN` was measured with.
_PICTURES: Final = 8


@dataclass(frozen=True, eq=False)
class GraphQuantizer:
    """How plans of one graph become graphs.

    Attributes:
        graph: the FP32 graph.
        amax: tensor → the magnitude that becomes 127.
        misfits: nodes that FP16 cannot carry, with the reasons; None where all that is not INT8 must stay FP32.
    """

    graph: onnx.ModelProto
    amax: Mapping[str, float]
    misfits: Mapping[str, str] | None

    @property
    def rest(self) -> Literal["fp16", "fp32"]:
        """What computes what is not INT8."""
        return "fp32" if self.misfits is None else "fp16"

    def make(self, plan: QuantizationPlan) -> tuple[onnx.ModelProto, tuple[KeptNode, ...]]:
        """The graph with the plan applied, and the nodes in it that are FP32 although the rest is FP16."""
        graph = quantize_graph(self.graph, plan, self.amax)
        if self.misfits is None:
            return graph, ()
        return halve_rest(graph, self.misfits)


def fp16_misfits(graph: onnx.ModelProto, images: Sequence[ImageSource], inputs: InputSpec) -> dict[str, str] | None:
    """Nodes that FP16 cannot carry, as `add_fp16` finds them on eight of some pictures and on synthetic ones.

    Returns:
        Node → reason; None where the graph's opset has no scales in FP16.

    Raises:
        CalibrationError: an activation is NaN or infinite.
        EngineError: ONNX Runtime fails.
    """
    if opset_of(graph) < HALF_OPSET:
        return None
    few = images[:: -(-len(images) // _PICTURES)]
    return nodes_out_of_range(graph, observe_ranges(graph, calibration_batches(few, inputs)))
