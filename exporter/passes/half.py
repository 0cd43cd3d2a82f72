"""FP16 as a property of the graph: what every node computes in is what its values are typed as.

A strongly typed engine runs what the ONNX says (TensorRT 11 has no other mode), so the whole graph is cast, not just
its weights. Nodes that FP16 cannot carry stay in FP32 with `Cast` nodes around them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

from .magnitudes import Magnitudes
from .nodes import KeptNode, insert_behind, node_name

#: Their results span more magnitudes than their inputs, or sum squares; none is where a DeepLab spends its time.
_WIDE_OPS: Final = frozenset(
    {
        "Exp", "InstanceNormalization", "LayerNormalization", "Log", "LogSoftmax", "Pow", "Reciprocal", "ReduceL2",
        "ReduceLogSumExp", "ReduceSumSquare", "Softmax",
    }
)  # fmt: skip
#: Operators that add their input of this index to sums of products: what is tiny in it is rounded away in any case.
_BIAS_INDEX: Final = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
#: They read the form of a tensor, not its values.
_FORM_OPS: Final = frozenset({"Shape", "Size"})
#: They take any type, so the question of their precision does not arise.
_NEUTRAL_OPS: Final = _FORM_OPS | {"Cast"}

_logger = logging.getLogger(__name__)


class ConvertToHalf(ir.passes.InPlacePass):
    """Types a graph FP16 between its FP32 inputs and outputs, except for nodes that must stay FP32.

    A node stays FP32 because `keep` says so; its operator has no FP16 form in ONNX, makes floats of its own type
    or widens the range of its values; it computes sizes and coordinates rather than features; it holds a subgraph or
    is of another domain; or its constants overflow or underflow. Inputs that ONNX wants as float32 (`scales` of
    `Resize`) stay so. Constants keep their names unless they are needed in both types. Activations are not looked at
    here: what would overflow or underflow in them comes in through `keep`.

    Args:
        keep: node name (`node_name`) → the reason to keep it in FP32.

    Attributes:
        kept: the nodes that the last call kept in FP32.
        halved: names of the nodes that it made FP16.
    """

    def __init__(self, keep: Mapping[str, str] | None = None) -> None:
        self._keep = dict(keep or {})
        self.kept: tuple[KeptNode, ...] = ()
        self.halved: tuple[str, ...] = ()

    def requires(self, model: ir.Model) -> None:
        """Raises `onnx_ir.passes.PreconditionError` where a value has no known element type."""
        for node in model.graph:
            for value in node.outputs:
                if value.name and value.dtype is None:
                    raise ir.passes.PreconditionError(
                        f"the element type of {value.name!r}, an output of {node.op_type} {node_name(node)!r}, is "
                        "not known, so it cannot be converted to FP16"
                    )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites `model` in place."""
        RemoveInitializersFromInputsPass()(model)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        opset = model.opset_imports.get("", 1)
        features = _feature_values(model.graph)
        half_inputs: dict[ir.Node, frozenset[int]] = {}
        kept: list[KeptNode] = []
        for node in model.graph:
            if not _touches_float(node):
                continue
            verdict = _half_inputs(node, opset, features)
            reason = self._keep.get(node_name(node)) or (verdict if isinstance(verdict, str) else None)
            if reason is not None:
                kept.append(KeptNode(node_name(node), node.op_type, reason))
                _logger.info("%s %s stays FP32: %s", node.op_type, node_name(node), reason)
            elif not isinstance(verdict, str):
                half_inputs[node] = verdict
        _retype(model.graph, half_inputs)
        self.kept, self.halved = tuple(kept), tuple(node_name(node) for node in half_inputs)
        return ir.passes.PassResult(model, modified=bool(half_inputs))

    def ensures(self, model: ir.Model) -> None:
        """Raises `onnx_ir.passes.PostconditionError` if inputs, outputs or a node are not typed as they must be."""
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.dtype == ir.DataType.FLOAT16:
                raise ir.passes.PostconditionError(f"{value.name!r} is FP16; the graph's inputs and outputs are not")
        explained = {node.name for node in self.kept}
        for node in model.graph:
            if (
                node.op_type not in _NEUTRAL_OPS
                and node_name(node) not in explained
                and _has(node.outputs, ir.DataType.FLOAT)
            ):
                raise ir.passes.PostconditionError(f"{node.op_type} {node_name(node)!r} is FP32 without a reason")


class RoundToHalf(ir.passes.InPlacePass):
    """Spells out what an FP16 graph computes: every FP16 node sums in FP32, and rounds its result to FP16.

    ONNX Runtime and OpenVINO on a CPU run FP16 nodes in FP32 and drop the roundings in between, so overflow and lost
    digits do not show there. Casts that are written in the graph, though, are obeyed. A GPU that fuses nodes rounds
    less often than this.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites `model` in place."""
        graph = model.graph
        nodes = [node for node in graph if node.op_type not in _NEUTRAL_OPS]
        nodes = [node for node in nodes if _has((*node.inputs, *node.outputs), ir.DataType.FLOAT16)]
        for node in nodes:
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype == ir.DataType.FLOAT16:
                    name = f"{node.outputs[0].name}/wide_{index}"
                    cast, wide = _cast(value, ir.DataType.FLOAT, name)
                    graph.insert_before(node, cast)
                    node.replace_input_with(index, wide)
            for value in node.outputs:
                if value.dtype == ir.DataType.FLOAT16:
                    # No graph output: those are FP32 and come from a Cast.
                    uses = tuple(value.uses())
                    value.type = ir.TensorType(ir.DataType.FLOAT)
                    cast, rounded = _cast(value, ir.DataType.FLOAT16, f"{value.name}/rounded")
                    graph.insert_after(node, cast)
                    for user, index in uses:
                        user.replace_input_with(index, rounded)
        return ir.passes.PassResult(model, modified=bool(nodes))


def _has(values: Any, dtype: ir.DataType) -> bool:  # noqa: ANN401 - tuples of optional values
    return any(value is not None and value.dtype == dtype for value in values)


def _touches_float(node: ir.Node) -> bool:
    """Whether the question of its precision arises for a node at all."""
    return node.op_type not in _NEUTRAL_OPS and _has((*node.inputs, *node.outputs), ir.DataType.FLOAT)


def _feature_values(graph: ir.Graph) -> set[ir.Value]:
    """Values that depend on the pixels, and weights that are stored as INT8; not sizes and coordinates."""
    found = set(graph.inputs)
    for node in graph:
        holds_graph = any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())
        stands_alone = holds_graph or node.op_type == "DequantizeLinear"
        if node.op_type not in _FORM_OPS and (stands_alone or any(value in found for value in node.inputs)):
            found.update(node.outputs)
    return found


def _half_inputs(node: ir.Node, opset: int, features: set[ir.Value]) -> frozenset[int] | str:
    """Which inputs of a node become FP16 when it does, or why it must stay FP32."""
    if node.domain not in ("", "ai.onnx"):
        return f"it is of the domain {node.domain}"
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return "it holds a subgraph"
    if not any(value in features for value in node.outputs):
        return "it computes sizes or coordinates, not features"
    if node.op_type in _WIDE_OPS:
        return "FP16 is too coarse for what this operator spans or sums"
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    inputs = {index: _type_of(schema.inputs, index) for index in _float_indices(node.inputs)}
    outputs = {_type_of(schema.outputs, index) for index in _float_indices(node.outputs)}
    allow_half = {
        each.type_param_str for each in schema.type_constraints if "tensor(float16)" in each.allowed_type_strs
    }
    half = frozenset(index for index, variable in inputs.items() if variable in allow_half)
    if not outputs <= {inputs[index] for index in half}:
        return "its output has a type of its own, or it has no FP16 form"
    for index in half:
        value = node.inputs[index]
        constant = None if value is None else ir.convenience.get_const_tensor(value)
        if constant is not None and (misfit := _constant_misfit(constant, ignore_tiny=_is_bias(node, index))):
            return f"its constant {constant.name!r} {misfit}"
    return half


def _float_indices(values: Any) -> Iterator[int]:  # noqa: ANN401 - tuples of optional values
    return (index for index, value in enumerate(values) if value is not None and value.dtype == ir.DataType.FLOAT)


def _type_of(parameters: Any, index: int) -> str:  # noqa: ANN401 - onnx's formal parameters
    """The type variable of an input or output; the last one may be variadic."""
    name: str = parameters[min(index, len(parameters) - 1)].type_str
    return name


def _is_bias(node: ir.Node, index: int) -> bool:
    """Whether an input is a bias: of a layer, or added right behind it."""
    if node.op_type == "Add":
        other = node.inputs[1 - index]
        producer = None if other is None else other.producer()
        return producer is not None and producer.op_type in _BIAS_INDEX
    return _BIAS_INDEX.get(node.op_type) == index


def _constant_misfit(constant: ir.TensorProtocol, *, ignore_tiny: bool) -> str | None:
    seen = Magnitudes()
    seen.add(constant.numpy())
    return seen.misfit(ignore_tiny=ignore_tiny)


def _retype(graph: ir.Graph, half_inputs: Mapping[ir.Node, frozenset[int]]) -> None:
    """Give every value the type that its producer makes, and a `Cast` (or a second constant) to users of the other."""
    constants = [value for value in graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
    produced = [value for node in half_inputs for value in node.outputs if value.dtype == ir.DataType.FLOAT]
    _detach_outputs(graph, produced)
    others = [value for node in graph if node not in half_inputs for value in node.outputs]
    full = [value for value in (*graph.inputs, *others) if value.dtype == ir.DataType.FLOAT]
    for value in produced:
        value.type = ir.TensorType(ir.DataType.FLOAT16)  # a new one: types may be shared between values
        wants_full = [(user, index) for user, index in value.uses() if not _wants_half(user, index, half_inputs)]
        _serve(graph, value, ir.DataType.FLOAT, wants_full)
    for value in full:
        wants_half = [(user, index) for user, index in value.uses() if _wants_half(user, index, half_inputs)]
        _serve(graph, value, ir.DataType.FLOAT16, wants_half)
    for value in constants:
        _convert_constant(graph, value, half_inputs)


def _wants_half(user: ir.Node, index: int, half_inputs: Mapping[ir.Node, frozenset[int]]) -> bool:
    return index in half_inputs.get(user, ())


def _detach_outputs(graph: ir.Graph, produced: list[ir.Value]) -> None:
    """Outputs of the graph stay FP32 under their names: what made them gets another name, and a `Cast`."""
    for index, output in enumerate(graph.outputs):
        if output not in produced:
            continue
        name, output.name = output.name, f"{output.name}/fp16"
        cast, detached = _cast(output, ir.DataType.FLOAT, f"{name}")
        cast.name = f"{name}/cast"
        graph.append(cast)
        graph.outputs[index] = detached


def _serve(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, uses: list[tuple[ir.Node, int]]) -> None:
    """Let `uses` read `value` as `dtype`, through one shared `Cast`."""
    uses = [(user, index) for user, index in uses if user.op_type not in _NEUTRAL_OPS]
    if not uses:
        return
    cast, converted = _cast(value, dtype, f"{value.name}/{_suffix(dtype)}")
    insert_behind(graph, value, [cast])
    for user, index in uses:
        user.replace_input_with(index, converted)


def _convert_constant(graph: ir.Graph, value: ir.Value, half_inputs: Mapping[ir.Node, frozenset[int]]) -> None:
    tensor = value.const_value
    wants_half = [(user, index) for user, index in value.uses() if _wants_half(user, index, half_inputs)]
    if tensor is None or not wants_half:
        return
    array = tensor.numpy().astype(np.float16)
    if len(wants_half) == len(value.uses()) and not value.is_graph_output():
        value.const_value = ir.tensor(array, name=value.name)
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        return
    half = ir.tensor(array, name=f"{value.name}/{_suffix(ir.DataType.FLOAT16)}")
    converted = ir.Value(name=half.name, shape=value.shape, type=ir.TensorType(half.dtype), const_value=half)
    graph.register_initializer(converted)
    for user, index in wants_half:
        user.replace_input_with(index, converted)


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> tuple[ir.Node, ir.Value]:
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.node("Cast", [value], {"to": dtype}, outputs=[output], name=name), output


def _suffix(dtype: ir.DataType) -> str:
    return "fp16" if dtype == ir.DataType.FLOAT16 else "fp32"
