"""Softmax, LogSoftmax or Sigmoid at the end of an ONNX graph: how to find and to remove it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx
from onnx import helper

#: Operators that give each position its value from the same position of their first input.
_PASSING: Final = frozenset(
    {"Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Slice"}
)
_RESIZING: Final = frozenset({"Resize", "Upsample"})
#: Operators at the end of a graph that say what its output is.
_FINAL: Final = frozenset(
    {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "ArgMax", "Hardmax", "Log", "Greater", "GreaterOrEqual"}
)


@dataclass(frozen=True)
class FinalActivation:
    """Operator behind which nothing is computed any more.

    Attributes:
        operator: `Softmax`, `LogSoftmax`, `Sigmoid`, …; `LogSoftmax` and `LogSigmoid` also where they are two nodes.
        nodes: the nodes that compute it, the first one first, each from the output of the one before.
        is_interpolated: its output is resized by interpolation, which an activation must not be.
    """

    operator: str
    nodes: tuple[onnx.NodeProto, ...]
    is_interpolated: bool


def find_final_activation(model: onnx.ModelProto) -> FinalActivation | None:
    """The activation that a graph's only output is made by, behind nodes that only move, convert or resize values."""
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers.get(model.graph.output[0].name)
    is_interpolated = False
    while node is not None and (node.op_type in _PASSING or node.op_type in _RESIZING):
        is_interpolated |= node.op_type in _RESIZING and _attribute(node, "mode") != b"nearest"
        node = producers.get(node.input[0])
    if node is None or node.op_type not in _FINAL:
        return None
    inner = producers.get(node.input[0])
    if node.op_type == "Log":
        if inner is None or inner.op_type not in ("Softmax", "Sigmoid"):
            return None
        return FinalActivation(f"Log{inner.op_type}", (inner, node), is_interpolated)
    return FinalActivation(node.op_type, (node,), is_interpolated)


def without(model: onnx.ModelProto, activation: FinalActivation) -> onnx.ModelProto:
    """A copy in which everything that takes the activation's output takes its input."""
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    graph = stripped.graph
    before, behind = activation.nodes[0].input[0], activation.nodes[-1].output[0]
    for node in activation.nodes:
        graph.node.remove(node)
    producer = next((node for node in graph.node if before in node.output), None)
    if producer is None or any(each.HasField("g") for node in graph.node for each in node.attribute):
        # The image itself, or a value that a subgraph may know by its name.
        place = 0 if producer is None else list(graph.node).index(producer) + 1
        graph.node.insert(place, helper.make_node("Identity", [before], [behind]))
        return stripped
    # The name behind stays, because it may be that of the graph's output.
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [behind if name == before else name for name in names]
    for info in [info for info in graph.value_info if info.name == before]:
        graph.value_info.remove(info)
    return stripped


def _attribute(node: onnx.NodeProto, name: str) -> bytes:
    """A text among the attributes, `nearest` where it is absent, which is the operators' default."""
    return next((bytes(each.s) for each in node.attribute if each.name == name), b"nearest")
