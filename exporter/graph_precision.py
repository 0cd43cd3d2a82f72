"""Precision that an ONNX graph computes in, wherever it keeps its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx

from ..manifest import Precision

#: Operators that mark a graph as INT8: explicit quantization, and operators on quantized values.
_QUANTIZED_OPS: Final = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)


#: Floats of 16 bits.
_HALVES: Final = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})


def graph_precision(model: onnx.ModelProto) -> Precision:
    """Lowest precision in a graph: `int8` with quantized operators, `fp16` with any value of 16 bits.

    Half-precision weights may be initializers, `Constant` nodes, or casts of FP32 ones; all of them also inside of the
    bodies of `If`, `Loop` and local functions.
    """
    bodies = [model.graph, *model.functions]
    nodes = [node for body in bodies for node in _nodes_in(body)]
    if any(node.op_type in _QUANTIZED_OPS for node in nodes):
        return "int8"
    halves = any(tensor.data_type in _HALVES for tensor in _initializers(model.graph, nodes))
    return "fp16" if halves or any(map(_makes_halves, nodes)) else "fp32"


def _nodes_in(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    for node in body.node:
        yield node
        for graph in _graphs_of(node):
            yield from _nodes_in(graph)


def _graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _initializers(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for each in (graph, *(inner for node in nodes for inner in _graphs_of(node))):
        yield from each.initializer
        yield from (sparse.values for sparse in each.sparse_initializer)


def _makes_halves(node: onnx.NodeProto) -> bool:
    """True for a cast to half precision, and for a constant in it."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _HALVES:
            return True
        constants = (attribute.t, attribute.sparse_tensor.values, *attribute.tensors)
        if any(tensor.data_type in _HALVES for tensor in constants):
            return True
    return False
