"""Graph passes that convert a graph to FP16: every node computes in the types of its values.

A strongly typed engine computes in the types of the ONNX graph (TensorRT 11 has no other mode), so the whole graph is
converted, not only its weights. Nodes whose values do not fit FP16 stay FP32, with `Cast` nodes around them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

from ..module_names import MODULE_KEY
from .magnitudes import Magnitudes
from .nodes import KeptNode, insert_behind, node_name

#: Operators that widen the range of their inputs or sum squares; none is time-critical in a DeepLab.
_WIDE_OPS: Final = frozenset(
    {
        "Exp", "InstanceNormalization", "LayerNormalization", "Log", "LogSoftmax", "Pow", "Reciprocal", "ReduceL2",
        "ReduceLogSumExp", "ReduceSumSquare", "Softmax",
    }
)  # fmt: skip
#: Index of the bias input, which is added to sums of products: tiny values in it are rounded away anyway.
_BIAS_INDEX: Final = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
#: Operators that read the shape of a tensor, not its values.
_FORM_OPS: Final = frozenset({"Shape", "Size"})
#: Operators that take any type, so that they have no precision of their own.
_NEUTRAL_OPS: Final = _FORM_OPS | {"Cast"}

_logger = logging.getLogger(__name__)


class ConvertToHalf(ir.passes.InPlacePass):
    """Converts a graph to FP16 between its FP32 inputs and outputs, except for nodes that must stay FP32.

    A node stays FP32 if it is in `keep`; if its operator has no FP16 form in ONNX, has an output with its own type, or
    widens the range of its values; if it computes sizes or coordinates instead of features; if it has a subgraph or
    belongs to another domain; or if its constants overflow or underflow. Inputs that ONNX requires as float32 (`scales`
    of `Resize`) stay float32. Constants keep their names unless both types are needed. Activations are not examined
    here: nodes whose activations overflow or underflow are passed in `keep`.

    Args:
        keep: node name (`node_name`) → reason to keep it in FP32.

    Attributes:
        kept: nodes that the last call kept in FP32.
        halved: names of the nodes that it converted.
    """

    def __init__(self, keep: Mapping[str, str] | None = None) -> None:
        self._keep = dict(keep or {})
        self.kept: tuple[KeptNode, ...] = ()
        self.halved: tuple[str, ...] = ()

    def requires(self, model: ir.Model) -> None:
        """Raises `onnx_ir.passes.PreconditionError` if the element type of a value is unknown."""
        for node in model.graph:
            for value in node.outputs:
                if value.name and value.dtype is None:
                    raise ir.passes.PreconditionError(
                        f"cannot convert to FP16: the element type of {value.name!r}, an output of {node.op_type} "
                        f"{node_name(node)!r}, is unknown"
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
                kept.append(KeptNode(node_name(node), node.op_type, reason, node.metadata_props.get(MODULE_KEY)))
                _logger.info("%s %s stays FP32: %s", node.op_type, node_name(node), reason)
            elif not isinstance(verdict, str):
                half_inputs[node] = verdict
        _retype(model.graph, half_inputs)
        self.kept, self.halved = tuple(kept), tuple(node_name(node) for node in half_inputs)
        return ir.passes.PassResult(model, modified=bool(half_inputs))

    def ensures(self, model: ir.Model) -> None:
        """Raises `onnx_ir.passes.PostconditionError` if an input, output or node has the wrong type."""
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
    """Makes the rounding of an FP16 graph explicit: every FP16 node accumulates in FP32 and rounds its result to FP16.

    On a CPU, ONNX Runtime and OpenVINO run FP16 nodes in FP32 without rounding in between, which hides overflow and
    loss of precision. They do execute explicit casts. A GPU that fuses nodes rounds less often than this.
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
                    # Not a graph output, which is FP32 and produced by a Cast.
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
    """True if a node reads or writes float32 values and so has a precision."""
    return node.op_type not in _NEUTRAL_OPS and _has((*node.inputs, *node.outputs), ir.DataType.FLOAT)


def _feature_values(graph: ir.Graph) -> set[ir.Value]:
    """Values that depend on pixels, and dequantized weights; not sizes and coordinates."""
    found = set(graph.inputs)
    for node in graph:
        holds_graph = any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())
        stands_alone = holds_graph or node.op_type == "DequantizeLinear"
        if node.op_type not in _FORM_OPS and (stands_alone or any(value in found for value in node.inputs)):
            found.update(node.outputs)
    return found


def _half_inputs(node: ir.Node, opset: int, features: set[ir.Value]) -> frozenset[int] | str:
    """Indices of the inputs that become FP16 with the node, or the reason why it must stay FP32."""
    if node.domain not in ("", "ai.onnx"):
        return f"it belongs to the domain {node.domain}"
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return "it has a subgraph"
    if not any(value in features for value in node.outputs):
        return "it computes sizes or coordinates, not features"
    if node.op_type in _WIDE_OPS:
        return "FP16 is too coarse for the range or sums of this operator"
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    inputs = {index: _type_of(schema.inputs, index) for index in _float_indices(node.inputs)}
    outputs = {_type_of(schema.outputs, index) for index in _float_indices(node.outputs)}
    allow_half = {
        each.type_param_str for each in schema.type_constraints if "tensor(float16)" in each.allowed_type_strs
    }
    half = frozenset(index for index, variable in inputs.items() if variable in allow_half)
    if not outputs <= {inputs[index] for index in half}:
        return "its operator has no FP16 form"
    for index in half:
        value = node.inputs[index]
        constant = None if value is None else ir.convenience.get_const_tensor(value)
        if constant is not None and (misfit := _constant_misfit(constant, ignore_tiny=_is_bias(node, index))):
            return f"its constant {constant.name!r} {misfit}"
    return half


def _float_indices(values: Any) -> Iterator[int]:  # noqa: ANN401 - tuples of optional values
    return (index for index, value in enumerate(values) if value is not None and value.dtype == ir.DataType.FLOAT)


def _type_of(parameters: Any, index: int) -> str:  # noqa: ANN401 - onnx's formal parameters
    """Type variable of an input or output; the last one may be variadic."""
    name: str = parameters[min(index, len(parameters) - 1)].type_str
    return name


def _is_bias(node: ir.Node, index: int) -> bool:
    """True if an input is a bias, of a layer or added right after it."""
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
    """Give every value the type of its producer, and a `Cast` (or a second constant) to users of the other type."""
    constants = [value for value in graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
    produced = [value for node in half_inputs for value in node.outputs if value.dtype == ir.DataType.FLOAT]
    _detach_outputs(graph, produced)
    others = [value for node in graph if node not in half_inputs for value in node.outputs]
    full = [value for value in (*graph.inputs, *others) if value.dtype == ir.DataType.FLOAT]
    for value in produced:
        value.type = ir.TensorType(ir.DataType.FLOAT16)  # a new object, because values may share types
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
    """Keep graph outputs FP32 under their names: the FP16 value gets a new name, and a `Cast` follows."""
    for index, output in enumerate(graph.outputs):
        if output not in produced:
            continue
        name, output.name = output.name, f"{output.name}/fp16"
        cast, detached = _cast(output, ir.DataType.FLOAT, f"{name}")
        cast.name = f"{name}/cast"
        graph.append(cast)
        graph.outputs[index] = detached


def _serve(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, uses: list[tuple[ir.Node, int]]) -> None:
    """Redirect `uses` of `value` to a shared `Cast` to `dtype`."""
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
