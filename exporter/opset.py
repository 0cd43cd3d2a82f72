"""Operator sets of ONNX other than the usual one, for older and newer consumers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx
from onnx import helper, numpy_helper

from ..errors import ExportError

#: Operator set of graphs unless another is asked for.
OPSET: Final = 20
#: The oldest that is written: TensorRT 8.6 reads it, and older ones lack what DeepLab's graphs use.
MIN_OPSET: Final = 17
#: The oldest that torch's exporter writes itself.
_TORCH_MIN: Final = 18
#: Attributes that opset 18 added to operators, and the value with which they mean what opset 17 does.
_ADDED: Final[dict[str, dict[str, object]]] = {
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "Split": {"num_outputs": None},  # any: the number of outputs says it, and uneven parts do not pass the checker
}
#: Reductions whose axes became an input with opset 18; ReduceSum's are one since opset 13.
_REDUCTIONS: Final = frozenset(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)


def torch_opset(opset: int) -> int:
    """The operator set to ask torch for.

    Raises:
        ExportError: the operator set is not one that can be written.
    """
    newest = onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= opset <= newest:
        raise ExportError(f"opset {opset} cannot be written; expected {MIN_OPSET} to {newest}, or none for {OPSET}")
    return max(opset, _TORCH_MIN)


def with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Write a graph of torch's exporter in an operator set, with the oldest IR version that has it.

    Args:
        model: a graph in that operator set, or in opset 18 for 17; it is changed in place.

    Raises:
        ExportError: an operator has no form in that operator set.
    """
    imported = next(entry for entry in model.opset_import if not entry.domain)
    if (imported.version, opset) == (_TORCH_MIN, MIN_OPSET):
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            _write_in_17(node, constants)
        imported.version = opset
    if imported.version != opset:
        raise ExportError(
            f"torch writes this graph in opset {imported.version}, not {opset}. Export it with the former"
        )
    if opset != OPSET:
        model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as exc:  # a ValidationError or InferenceError
        hint = f" Export it with opset {_TORCH_MIN} or newer." if opset < _TORCH_MIN else ""
        raise ExportError(f"the graph has no form in opset {opset}: {exc}.{hint}") from exc
    return model


def _write_in_17(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Write a node of opset 18 as opset 17 has it; left as it is where there is no form, for the checker to refuse."""
    meaning = _ADDED.get(node.op_type, {})
    for attribute in list(node.attribute):
        if attribute.name in meaning and meaning[attribute.name] in (None, helper.get_attribute_value(attribute)):
            node.attribute.remove(attribute)
    if node.op_type in _REDUCTIONS:
        for attribute in [each for each in node.attribute if each.name == "noop_with_empty_axes" and not each.i]:
            node.attribute.remove(attribute)
        if len(node.input) > 1 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input.pop(1)]).tolist()
            node.attribute.append(helper.make_attribute("axes", axes))
