"""Plan of a quantization: the layers of a graph that become INT8, and the tensors to quantize for them.

The rules follow what TensorRT fuses best and CPU engines can use as well:

- A layer (`Conv`, `ConvTranspose`, `Gemm`, `MatMul` with constant weights) reads its input and its weights quantized.
  Its output is not quantized, which would separate it from its activation function; the next layer's input is.
- The identity branch of a residual `Add` is quantized if the other branch ends in an INT8 layer, which can then do
  the addition in its epilogue.
- The inputs of a `Concat` in front of an INT8 layer share one scale, and so do inputs and outputs of operators that
  only move values (`MaxPool`, `Reshape`, …): an engine quantizes once, in front of them, and then moves bytes.
- Nothing is quantized for `Resize`, average pooling, or any other arithmetic.
- Layers that read the network's input, and classifiers, stay in higher precision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from ..errors import CalibrationError
from ..exporter.passes import KeptNode
from ..exporter.passes.base import pass_errors
from ..exporter.passes.magnitudes import HALF_TINY
from ..exporter.passes.nodes import node_name

#: Maximum of symmetric INT8, −127 … 127.
INT8_MAX: Final = 127
#: Minimum scale in FP16, a normal number there: engines may store scales in FP16, and flush subnormal ones to 0.
MIN_SCALE: Final = HALF_TINY
#: Minimum scale in FP32, for values that are too small for one in FP16; products of two are still normal.
MIN_WIDE_SCALE: Final = 2.0**-60

#: Operators that can be INT8; each reads its input first and its weights second.
_LAYER_OPS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: Operators that move or select values of their first input and compute none, so that its scale passes through.
_MOVING_OPS: Final = frozenset(
    {
        "DepthToSpace", "Dropout", "Expand", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth",
        "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_QUANTIZED_OPS: Final = frozenset(
    {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
        "QuantizeLinear",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer that is quantized, kept or measured as a unit.

    Attributes:
        name: the node's name.
        op: its operator.
        source: name of the activation tensor that it reads, to be quantized.
        weight: name of its weights.
        axis: output channel axis of the weights.
        wide: its weights are so small that scales in FP16 would be subnormal, so that theirs are in FP32.
        carriers: tensors from which `source` is joined or moved, by `Concat`, `MaxPool`, `Reshape` …. If another layer
            reads one of them quantized, it shares the scale.
    """

    name: str
    op: str
    source: str
    weight: str
    axis: int
    wide: bool = False
    carriers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Residual:
    """An `Add` that an INT8 layer can do in its epilogue.

    Attributes:
        name: the node's name.
        layer: the layer that ends one branch.
        identity: tensor of the other branch, to be quantized.
    """

    name: str
    layer: str
    identity: str


@dataclass(frozen=True)
class QuantizationPlan:
    """Layers and tensors of one graph that become INT8.

    Attributes:
        layers: the INT8 layers, in the order of the graph.
        residuals: additions whose identity branch is quantized.
        kept: layers that stay in higher precision, each with the reason.
    """

    layers: tuple[Layer, ...]
    residuals: tuple[Residual, ...]
    kept: tuple[KeptNode, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all activation tensors to quantize, hence to observe."""
        read = (layer.source for layer in self.layers)
        return tuple(dict.fromkeys((*read, *(residual.identity for residual in self.residuals))))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Groups of two or more of `tensors` that must share one scale."""
        group_of: dict[str, set[str]] = {}
        for layer in self.layers:
            names = {layer.source, *layer.carriers}
            merged = names.union(*(group_of[name] for name in names if name in group_of))
            group_of.update(dict.fromkeys(merged, merged))
        groups = {id(group): group for group in group_of.values()}
        members = (tuple(name for name in self.tensors if name in group) for group in groups.values())
        return tuple(group for group in members if len(group) > 1)

    def only(self, layers: Collection[str]) -> QuantizationPlan:
        """Copy of the plan with only these layers in INT8."""
        others = (layer.name for layer in self.layers if layer.name not in layers)
        return self.without(dict.fromkeys(others, "it is left out"))

    def without(self, layers: Mapping[str, str]) -> QuantizationPlan:
        """Copy of the plan without these layers (name → reason), and without tensors that only they needed."""
        left = tuple(layer for layer in self.layers if layer.name not in layers)
        names = {layer.name for layer in left}
        return replace(
            self,
            layers=left,
            residuals=tuple(residual for residual in self.residuals if residual.layer in names),
            kept=self.kept
            + tuple(
                KeptNode(layer.name, layer.op, layers[layer.name]) for layer in self.layers if layer.name in layers
            ),
        )


def plan_quantization(
    graph: onnx.ModelProto, *, keep: Mapping[str, str] | None = None, ends: bool = False
) -> QuantizationPlan:
    """Plan which layers of an FP32 graph become INT8.

    Args:
        graph: the graph, which is not modified. Subgraphs and model-local functions are skipped.
        keep: name of a layer → the reason to keep it in higher precision.
        ends: also quantize the layers that read the network's input, and the classifiers.

    Raises:
        CalibrationError: the graph is quantized already, two layers have one name, or a weight is NaN or infinite.
    """
    with pass_errors(RemoveInitializersFromInputsPass.__name__):
        model = ir.from_proto(graph)
        RemoveInitializersFromInputsPass()(model)  # so that only images remain as inputs
    _require_plain(model)
    reasons = {} if ends else _ends(model.graph)
    reasons.update(keep or {})
    layers: list[Layer] = []
    kept: list[KeptNode] = []
    for node in model.graph:
        if not _is_layer(node):
            continue
        name = node_name(node)
        reason = reasons.get(name) or _unfit(node)
        if reason:
            kept.append(KeptNode(name, node.op_type, reason))
        else:
            layers.append(_layer(node))
    residuals = tuple(_residuals(model.graph, {layer.name for layer in layers}))
    _require_unique([*layers, *residuals, *kept])
    return QuantizationPlan(tuple(layers), residuals, tuple(kept))


def _is_layer(node: ir.Node) -> bool:
    """True if the node's operator can become INT8."""
    return node.domain in ("", "ai.onnx") and node.op_type in _LAYER_OPS


def _moved_input(node: ir.Node) -> ir.Value | None:
    """Input whose values the node only moves, or None if it computes values."""
    if node.op_type in _MOVING_OPS or (node.op_type == "Pad" and _pads_with_zeros(node)):
        return node.inputs[0]
    return None


def _require_plain(model: ir.Model) -> None:
    found = next((node for node in model.graph if node.op_type in _QUANTIZED_OPS), None)
    if found is not None:
        raise CalibrationError(
            f"the graph is already quantized: it has a {found.op_type} node, {node_name(found)!r}. Quantize the FP32 "
            "graph instead, or pack this one with `atrous pack`, which keeps its scales."
        )


def _require_unique(nodes: Sequence[Layer | Residual | KeptNode]) -> None:
    seen: set[str] = set()
    for node in nodes:
        if node.name in seen:
            raise CalibrationError(f"duplicate node name {node.name!r}. Give every node a unique name.")
        seen.add(node.name)


def _unfit(node: ir.Node) -> str | None:
    """Reason why a layer cannot become INT8, whatever its activations, or None."""
    source, weight = node.inputs[:2]
    tensor = None if weight is None else ir.convenience.get_const_tensor(weight)
    if source is None or weight is None or tensor is None:
        return "its weights are computed, not constant"
    if tensor.dtype != ir.DataType.FLOAT:
        return f"its weights are {tensor.dtype.name}, not FLOAT"
    if len(tensor.shape) < 2:
        return "its weights are a vector without an output channel axis"
    if ir.convenience.get_const_tensor(source) is not None:
        return "its input is constant"
    if node.attributes.get_int("transA", 0):
        return "it reads its input transposed"
    array = tensor.numpy()
    largest = float(np.abs(array).max(initial=0.0))
    if not np.isfinite(largest):
        raise CalibrationError(f"weight {weight.name!r} of {node_name(node)!r} is NaN or infinite. Check the model.")
    if largest < INT8_MAX * MIN_WIDE_SCALE:
        return f"its largest weight is {largest:.2g}; it multiplies by nothing"
    return None


def _layer(node: ir.Node) -> Layer:
    source, weight = node.inputs[:2]
    assert source is not None  # noqa: S101 - `_unfit` saw it
    assert weight is not None  # noqa: S101
    carriers = dict.fromkeys(_name(value) for value in _carriers(source))
    tensor = ir.convenience.get_const_tensor(weight)
    assert tensor is not None  # noqa: S101 - likewise
    wide = float(np.abs(tensor.numpy()).max()) < INT8_MAX * MIN_SCALE
    return Layer(
        node_name(node), node.op_type, _name(source), _name(weight), _channel_axis(node), wide, tuple(carriers)
    )


def _carriers(value: ir.Value) -> Iterator[ir.Value]:
    """Values that are joined or moved into `value`, recursively."""
    node = value.producer()
    if node is None or node.domain != "":
        return
    for source in node.inputs if node.op_type == "Concat" else [_moved_input(node)]:
        if source is not None and ir.convenience.get_const_tensor(source) is None:
            yield source
            yield from _carriers(source)


def _channel_axis(node: ir.Node) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "MatMul":
        weight = node.inputs[1]
        return len(weight.shape) - 1 if weight is not None and weight.shape is not None else 1
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return 1  # ConvTranspose: [in, out / groups, …]; channels of the same index in every group share a scale


def _pads_with_zeros(node: ir.Node) -> bool:
    """True unless a `Pad` inserts a non-zero constant, which might not be representable at the scale."""
    if node.attributes.get_string("mode", "constant") != "constant":
        return True
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return True
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and not np.any(tensor.numpy())


def _ends(graph: ir.Graph) -> dict[str, str]:
    """First and last layers of the graph: name → reason to keep them."""
    reasons: dict[str, str] = {}
    raw = set(graph.inputs)  # values before the first layer
    for node in graph:
        if any(value in raw for value in node.inputs):
            if _is_layer(node):
                reasons[node_name(node)] = "it reads the network's input"
            elif node.op_type not in ("Shape", "Size"):
                raw.update(node.outputs)
    final = set(graph.outputs)
    for node in reversed(graph):
        if any(value in final for value in node.outputs):
            if _is_layer(node):
                reasons[node_name(node)] = "it is a classifier: no other layer follows it"
            else:
                final.update(value for value in node.inputs if value is not None)
    return reasons


def _residuals(graph: ir.Graph, layers: Collection[str]) -> Iterator[Residual]:
    depth: dict[ir.Value, int] = dict.fromkeys(graph.inputs, 0)  # layers on the longest path from the input
    for node in graph:
        deepest = max((depth.get(value, -1) for value in node.inputs if value is not None), default=-1)
        if node.op_type == "Add" and node.domain == "" and (found := _residual(node, layers, depth)):
            yield found
        if deepest >= 0:
            depth.update(dict.fromkeys(node.outputs, deepest + _is_layer(node)))


def _residual(node: ir.Node, layers: Collection[str], depth: Mapping[ir.Value, int]) -> Residual | None:
    """Residual addition at `node`, or None; the deeper branch that ends in an INT8 layer does the addition."""
    branches = [value for value in node.inputs if value is not None and value in depth]
    if len(branches) != 2 or branches[0] is branches[1]:
        return None
    ending = [value for value in branches if _ends_in(value, layers)]
    if not ending:
        return None
    main = max(ending, key=lambda value: depth[value])
    producer = main.producer()
    identity = branches[0] if main is branches[1] else branches[1]
    assert producer is not None  # noqa: S101 - a layer made it
    return Residual(node_name(node), node_name(producer), _name(identity))


def _ends_in(value: ir.Value, layers: Collection[str]) -> bool:
    """True if an INT8 layer produces this value for a single consumer."""
    producer = value.producer()
    return producer is not None and node_name(producer) in layers and _is_layer(producer) and len(value.uses()) == 1


def _name(value: ir.Value) -> str:
    assert value.name is not None  # noqa: S101 - ONNX names every value
    return value.name
