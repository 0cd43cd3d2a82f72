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
#: Operators that answer yes or no.
COMPARING: Final = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Sign"})
#: Operators at the end of a graph that say what its output is.
_FINAL: Final = COMPARING | {
    "Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "ArgMax", "Hardmax", "Log"
}  # fmt: skip
#: Operators whose output is no logits, whatever is computed from it.
_ACTIVATING: Final = COMPARING | {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "ArgMax", "Hardmax", "Exp"}
#: Operators that compute with values, or with neighbouring ones, and have no weights.
_COMPUTING: Final = frozenset(
    {
        "Abs", "Add", "AveragePool", "Ceil", "Clip", "Concat", "DequantizeLinear", "Div", "Floor", "Log", "Max",
        "MaxPool", "Mean", "Min", "Mul", "Neg", "Not", "OneHot", "Pad", "Pow", "QuantizeLinear", "Reciprocal",
        "ReduceMax", "ReduceSum", "Round", "Sqrt", "Sub", "Sum", "Where",
    }
)  # fmt: skip
#: Operators whose output does not depend on the values of their input.
_CONSTANT: Final = frozenset({"Constant", "ConstantOfShape", "Shape"})


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


def computed_from_activations(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Activations that a graph's only output is computed from, and the operators behind them.

    Returns:
        Names of both, sorted, such as `(["Softmax"], ["Mul", "Sub"])`; two empty lists where anything else, such as the
        output of a convolution, goes into the output as well.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    activations, behind, seen = set(), set(), set()
    waiting = [model.graph.output[0].name]
    while waiting:
        name = waiting.pop()
        if name in weights or name in seen or not name:  # an optional input may have no name
            continue
        seen.add(name)
        node = producers.get(name)
        if node is None:
            return [], []  # the image itself
        if node.op_type in _ACTIVATING:
            activations.add(node.op_type)
        elif node.op_type in _COMPUTING:
            behind.add(node.op_type)
            waiting += node.input
        elif node.op_type in _PASSING or node.op_type in _RESIZING:
            waiting.append(node.input[0])
        elif node.op_type not in _CONSTANT:
            return [], []
    return sorted(activations), sorted(behind)


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
