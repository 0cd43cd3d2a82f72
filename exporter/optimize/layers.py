"""Atrous convolutions of a graph, each cut out as a graph of its own that can be timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, shape_inference
from onnx.utils import Extractor

from ...manifest import Size
from ..passes.atrous import atrous_convs
from ..passes.base import pass_errors
from ..passes.nodes import node_name


@dataclass(frozen=True, eq=False)
class AtrousLayer:
    """One atrous convolution, with its quantization where it has one.

    Attributes:
        name: name of the node.
        graph: maps [N, C, H, W] float32 to [N, M, h, w] float32; H and W as static or dynamic as in the whole graph.
        shape: [N, C, H, W] of its input, where the images have the size that is measured.
        cost: equal for layers that cost the same, whatever their weights are.
    """

    name: str
    graph: onnx.ModelProto
    shape: tuple[int, ...]
    cost: str


def cut_layers(model: onnx.ModelProto, size: Size) -> tuple[list[AtrousLayer], list[str]]:
    """The atrous convolutions of a graph with inferred shapes, for images [1, 3, *size].

    Returns:
        The layers, and the names of those that cannot be timed alone: in a subgraph, or of a size that is known only
        when the graph runs.

    Raises:
        ExportError: the graph cannot be read.
    """
    shapes = _shapes_at(model, size)
    layers, left = [], []
    with pass_errors("cutting out atrous convolutions"):
        extractor = Extractor(model)
        whole = ir.from_proto(model)
        for conv in atrous_convs(whole):
            entry, output, name = str(_entry(conv).name), str(conv.outputs[0].name), node_name(conv)
            shape = shapes.get(entry)
            if conv.graph is not whole.graph or shape is None or output not in shapes:
                left.append(name)
                continue
            cut = extractor.extract_model([entry], [output])
            layers.append(AtrousLayer(name, _with_float32_ends(cut), shape, _cost(conv, shape)))
    return layers, left


def _entry(conv: ir.Node) -> ir.Value:
    """The value that the convolution computes from: in front of `QuantizeLinear` where its input is quantized."""
    (value, *_) = _inputs(conv)
    for op in ("DequantizeLinear", "QuantizeLinear"):
        producer = value.producer()
        if producer is None or producer.op_type != op:
            break
        (value, *_) = _inputs(producer)
    return value


def _inputs(node: ir.Node) -> Iterator[ir.Value]:
    return (value for value in node.inputs if value is not None)


def _cost(conv: ir.Node, shape: tuple[int, ...]) -> str:
    source, weight = (value for value, _ in zip(_inputs(conv), range(2), strict=False))
    producers = (value.producer() for value in (source, weight))
    made_by = [producer and producer.op_type for producer in producers]
    return f"{sorted(map(str, conv.attributes.values()))} {weight.shape} {shape} {source.dtype} {made_by}"


def _shapes_at(model: onnx.ModelProto, size: Size) -> dict[str, tuple[int, ...]]:
    """Shapes of the values that are static for images [1, bands, *size]."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input[:1], *fixed.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            length = (1, dim.dim_value, *size)[axis] if value is fixed.graph.input[0] else None
            dim.Clear()
            if length is not None:
                dim.dim_value = length
    inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
    found = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(dims) == 4 and all(dims):
            found[value.name] = tuple(dims)
    return found


def _with_float32_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph between casts where its ends are FP16, as every backend takes and gives float32."""
    graph = model.graph
    (source,), (output,) = graph.input, graph.output
    if source.type.tensor_type.elem_type != TensorProto.FLOAT:
        kind, name = source.type.tensor_type.elem_type, source.name
        source.name, source.type.tensor_type.elem_type = "float32_input", TensorProto.FLOAT
        graph.node.insert(0, helper.make_node("Cast", [source.name], [name], name="from_float32", to=kind))
    if output.type.tensor_type.elem_type != TensorProto.FLOAT:
        name = output.name
        output.name, output.type.tensor_type.elem_type = "float32_output", TensorProto.FLOAT
        graph.node.append(helper.make_node("Cast", [name], [output.name], name="to_float32", to=TensorProto.FLOAT))
    return model
