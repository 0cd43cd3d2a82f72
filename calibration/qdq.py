"""Insert a quantization plan into a graph as explicit Q/DQ: symmetric INT8 with zero point 0.

    x ─ QuantizeLinear ─ DequantizeLinear ─┐
                    W int8 ─ DequantizeLinear ─ Conv ─ Relu ─ …

Every quantized tensor has one Q/DQ pair, shared by its consumers; every weight is one INT8 constant with a scale per
output channel. Biases are not quantized. Engines fuse the pairs into the layers: in a strongly typed network, the pairs
make a layer INT8.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

from ..errors import CalibrationError, ExportError
from ..exporter.passes import ConvertToHalf, KeptNode, run_passes
from ..exporter.passes.nodes import insert_behind, node_name
from .plan import INT8_MAX, MIN_SCALE, MIN_WIDE_SCALE, Layer, QuantizationPlan
from .split_bias import SplitBias

#: The first opset with per-channel scales.
MIN_OPSET: Final = 13
#: The first opset that allows FP16 scales.
HALF_OPSET: Final = 19
#: Significant bits of a scale: as many as FP16 has, so that it is the same number in both types.
_SCALE_BITS: Final = 11
_ZERO_POINT: Final = "int8_zero_point"


def quantize_graph(graph: onnx.ModelProto, plan: QuantizationPlan, amax: Mapping[str, float]) -> onnx.ModelProto:
    """Insert the Q/DQ pairs of a plan into a graph; the result passes the full check of ONNX.

    Args:
        graph: the FP32 graph that `plan` was made for; not modified.
        plan: the layers to quantize, except those that `usable_plan` removes.
        amax: tensor → magnitude that maps to 127, for every tensor of the plan. Tensors of a group share the maximum.

    Raises:
        CalibrationError: an amax is missing, negative, NaN or infinite.
        ExportError: the plan belongs to another graph, or the opset is below 13.
    """
    usable = usable_plan(plan, amax)
    return run_passes(graph, [InsertQdq(usable, amax)])


def halve_rest(
    graph: onnx.ModelProto, keep: Mapping[str, str] | None = None
) -> tuple[onnx.ModelProto, tuple[KeptNode, ...]]:
    """Convert everything that is not INT8 to FP16, scales included; inputs and outputs keep their types.

    Biases of INT8 layers become a separate `Add` (`SplitBias`), unless a residual `Add` follows the layer: the engine
    could not fuse it with another `Add` in between.

    Args:
        graph: graph with Q/DQ, as `quantize_graph` returns it; not modified.
        keep: node name → reason to keep it FP32, as `nodes_out_of_range` finds in the graph without Q/DQ. Q/DQ pairs
            next to such a node stay FP32 too, because a cast in between would overflow as the node would.

    Returns:
        The graph, and the nodes in it that stay FP32, Q/DQ included, with the reasons.

    Raises:
        ExportError: the opset is below 19, which does not allow FP16 scales.
    """
    opset = opset_of(graph)
    if opset < HALF_OPSET:
        raise ExportError(
            f"FP16 scales need ONNX opset >= {HALF_OPSET}, the model has {opset}. Export it with a newer opset, or "
            "leave the rest in FP32."
        )
    graph = run_passes(graph, [SplitBias(_layers_with_half_scales(graph) - set(keep or ()))])
    convert = ConvertToHalf(keep)
    half = run_passes(graph, [convert])
    kept = {node.name: node.reason for node in convert.kept}
    if (widened := _with_pairs(graph, kept)).keys() != kept.keys():
        convert = ConvertToHalf(widened)
        half = run_passes(graph, [convert])
    return half, convert.kept


def opset_of(graph: onnx.ModelProto) -> int:
    """Opset version of the default ONNX domain."""
    return next((int(each.version) for each in graph.opset_import if each.domain in ("", "ai.onnx")), 1)


def _layers_with_half_scales(graph: onnx.ModelProto) -> set[str]:
    """Names of INT8 layers (two dequantized inputs), without those whose output a residual `Add` reads directly."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    dequantized = {node.output[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    added = {
        name
        for node in graph.graph.node
        if node.op_type == "Add" and constants.isdisjoint(node.input)
        for name in node.input
    }
    return {
        node.name or node.output[0]
        for node in graph.graph.node
        if len(node.input) > 1 and dequantized.issuperset(node.input[:2]) and node.output[0] not in added
    }


def _with_pairs(graph: onnx.ModelProto, keep: Mapping[str, str]) -> dict[str, str]:
    """`keep` extended by the Q/DQ nodes next to its nodes, for the same reasons."""
    found = dict(keep)
    reasons: dict[str, str] = {}  # value name → reason, for inputs and outputs of the kept nodes
    for node in graph.graph.node:
        if (name := node.name or node.output[0]) in keep:
            reasons.update(dict.fromkeys((*node.input, *node.output), keep[name]))
    for op in ("DequantizeLinear", "QuantizeLinear"):
        for node in graph.graph.node:
            if node.op_type == op and (reason := reasons.get(node.output[0]) or reasons.get(node.input[0])):
                found[node.name] = reason
                reasons[node.input[0]] = reason
    return found


def usable_plan(plan: QuantizationPlan, amax: Mapping[str, float]) -> QuantizationPlan:
    """Remove layers whose input was always 0, or as good as that; they are kept, with the reason.

    An identity branch of such a range is not quantized, nor is one too small for a scale in FP16.

    Raises:
        CalibrationError: an amax is missing, negative, NaN or infinite.
    """
    shared = shared_amax(plan, amax)
    reasons = {}
    for layer in plan.layers:
        largest = shared[layer.source]
        if largest == 0:
            reasons[layer.name] = "its input was always 0, so it has no scale"
        elif largest < INT8_MAX * MIN_WIDE_SCALE:
            reasons[layer.name] = f"its largest input is {largest:.2g}; it multiplies nothing"
    usable = plan.without(reasons)
    residuals = tuple(each for each in usable.residuals if shared[each.identity] >= INT8_MAX * MIN_SCALE)
    return dataclasses.replace(usable, residuals=residuals)


def wide_layers(plan: QuantizationPlan, amax: Mapping[str, float]) -> dict[str, str]:
    """Layers whose scales are in FP32, because those of their weights or input would be subnormal in FP16: name → why.

    They are INT8 all the same, and what comes out of them is FP32. So are layers that read the same quantized tensor:
    a cast between its pair and a layer would take the layer out of INT8.
    """
    shared = shared_amax(plan, amax)
    own = [layer for layer in plan.layers if layer.wide or shared[layer.source] < INT8_MAX * MIN_SCALE]
    neighbours = {layer.source: layer.name for layer in own}
    reasons = {
        layer.name: f"it shares its quantized input with {neighbours[layer.source]}, whose INT8 scales are FP32"
        for layer in plan.layers
        if layer.source in neighbours
    }
    return reasons | {layer.name: "its INT8 scales would be subnormal in FP16" for layer in own}


def shared_amax(plan: QuantizationPlan, amax: Mapping[str, float]) -> dict[str, float]:
    """Tensor → amax, for every tensor of the plan: its own, or the largest of its group.

    Raises:
        CalibrationError: one is missing, negative, NaN or infinite.
    """
    for name in plan.tensors:
        if name not in amax:
            raise CalibrationError(
                f"no range for the activation {name!r}. Calibrate again with this plan and this graph."
            )
        if not (math.isfinite(amax[name]) and amax[name] >= 0):
            raise CalibrationError(
                f"invalid range {amax[name]} of the activation {name!r}; expected a finite number, 0 or more. "
                "Check the calibration images and the weights."
            )
    shared = {name: float(amax[name]) for name in plan.tensors}
    for group in plan.groups:
        shared.update(dict.fromkeys(group, max(shared[name] for name in group)))
    return shared


def scale_of(amax: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """INT8 scales of any shape: amax / 127, rounded to the significant bits of FP16.

    The scales of one tensor are at least `MIN_SCALE`, or `MIN_WIDE_SCALE` where all of them are below that.
    """
    exact = np.asarray(amax, np.float64) / INT8_MAX
    least = MIN_SCALE if exact.max(initial=0.0) >= MIN_SCALE or not exact.any() else MIN_WIDE_SCALE
    mantissa, exponent = np.frexp(np.maximum(exact, least))
    scale: NDArray[np.float64] = np.ldexp(np.rint(np.ldexp(mantissa, _SCALE_BITS)), exponent - _SCALE_BITS)
    return scale.astype(np.float32)


class InsertQdq(ir.passes.InPlacePass):
    """Inserts the `QuantizeLinear`/`DequantizeLinear` pairs of a plan.

    Values and nodes keep their names; consumers outside the plan keep their inputs.

    Args:
        plan: made by `plan_quantization` for this graph, with usable ranges.
        amax: tensor → magnitude that maps to 127, for every tensor of the plan.
    """

    def __init__(self, plan: QuantizationPlan, amax: Mapping[str, float]) -> None:
        self._plan = plan
        self._amax = shared_amax(plan, amax)

    def requires(self, model: ir.Model) -> None:
        """Raises `onnx_ir.passes.PreconditionError` below opset 13, or if the plan belongs to another graph."""
        version = model.opset_imports.get("")
        if version is None or version < MIN_OPSET:
            raise ir.passes.PreconditionError(
                f"per-channel INT8 scales need ONNX opset >= {MIN_OPSET}, the model has {version}. Export it with "
                "a newer opset."
            )
        nodes = {node_name(node) for node in model.graph}
        values = {value.name for value in _values(model.graph)}
        named = {*(layer.name for layer in self._plan.layers), *(residual.name for residual in self._plan.residuals)}
        missing = sorted((named - nodes) | (set(self._plan.tensors) - values))
        if missing:
            raise ir.passes.PreconditionError(
                f"the plan names {missing[0]!r}, which this graph lacks. Plan and calibrate this graph."
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites `model` in place."""
        RemoveInitializersFromInputsPass()(model)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        graph = model.graph
        layers = {layer.name: layer for layer in self._plan.layers}
        readers = {name: layer.source for name, layer in layers.items()}
        readers.update((residual.name, residual.identity) for residual in self._plan.residuals)
        values = {value.name: value for value in _values(graph)}
        for name in self._plan.tensors:
            uses = [(user, index) for user, index in values[name].uses() if readers.get(node_name(user)) == name]
            _insert_pair(graph, values[name], scale_of(self._amax[name]), uses)
        weights: dict[tuple[str, int], ir.Value] = {}
        for node in list(graph):
            layer = layers.get(node_name(node))
            if layer is not None:
                _quantize_weight(graph, node, layer, weights)
        return ir.passes.PassResult(model, modified=bool(layers))

    def ensures(self, model: ir.Model) -> None:
        """Raises `onnx_ir.passes.PostconditionError` unless every planned layer reads two dequantized inputs."""
        layers = {layer.name for layer in self._plan.layers}
        for node in model.graph:
            if node_name(node) in layers:
                for value in node.inputs[:2]:
                    producer = value and value.producer()
                    if not producer or producer.op_type != "DequantizeLinear":
                        raise ir.passes.PostconditionError(f"{node_name(node)!r} reads {value!r}, not dequantized")


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _insert_pair(graph: ir.Graph, value: ir.Value, scale: NDArray[np.float32], uses: Any) -> None:  # noqa: ANN401
    """Insert a Q/DQ pair right after the producer of `value`, and redirect `uses` to it."""
    constants = [_constant(graph, f"{value.name}/scale", scale), _zero_point(graph)]
    codes = ir.Value(name=f"{value.name}/int8", shape=value.shape, type=ir.TensorType(ir.DataType.INT8))
    result = ir.Value(name=f"{value.name}/dequantized", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
    pair = [
        ir.node("QuantizeLinear", [value, *constants], outputs=[codes], name=f"{value.name}/quantize"),
        ir.node("DequantizeLinear", [codes, *constants], outputs=[result], name=f"{value.name}/dequantize"),
    ]
    insert_behind(graph, value, pair)
    for user, index in uses:
        user.replace_input_with(index, result)


def _quantize_weight(graph: ir.Graph, node: ir.Node, layer: Layer, done: dict[tuple[str, int], ir.Value]) -> None:
    """Replace the layer's weights by a dequantized INT8 constant; layers that share weights share it."""
    weight = node.inputs[1]
    tensor = None if weight is None else weight.const_value
    if weight is None or tensor is None:
        raise CalibrationError(f"{layer.name!r} has no constant weights. Plan this graph.")
    key = (layer.weight, layer.axis)
    if key not in done:
        array = tensor.numpy()
        others = tuple(axis for axis in range(array.ndim) if axis != layer.axis)
        scale = scale_of(np.abs(array).max(axis=others))
        shape = [-1 if axis == layer.axis else 1 for axis in range(array.ndim)]
        codes = np.clip(np.rint(array / scale.reshape(shape)), -INT8_MAX, INT8_MAX).astype(np.int8)
        inputs = [
            _constant(graph, f"{weight.name}/int8", codes),
            _constant(graph, f"{weight.name}/scale", scale),
            _constant(graph, f"{weight.name}/zero_point", np.zeros(scale.shape, np.int8)),
        ]
        result = ir.Value(name=f"{weight.name}/dequantized", shape=weight.shape, type=ir.TensorType(ir.DataType.FLOAT))
        name = f"{weight.name}/dequantize"
        graph.insert_before(
            node, ir.node("DequantizeLinear", inputs, {"axis": layer.axis}, outputs=[result], name=name)
        )
        done[key] = result
    node.replace_input_with(1, done[key])
    if weight.name and not weight.uses() and not weight.is_graph_output():
        del graph.initializers[weight.name]


def _zero_point(graph: ir.Graph) -> ir.Value:
    existing = graph.initializers.get(_ZERO_POINT)
    return existing or _constant(graph, _ZERO_POINT, np.zeros((), np.int8))


def _constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
