"""Tails of a network: what is computed behind a cut, so that the part in front of it runs once for many variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..arrays import FloatArray
from ..exporter.passes.nodes import node_name
from ..runtime.backends.onnxruntime import import_onnxruntime, session_errors, session_options


def cut_in_front_of(model: ir.Model, layers: Sequence[str], count: int) -> dict[str, tuple[str, ...]]:
    """For each layer the values that everything behind a cut in front of it reads.

    Args:
        model: a graph with inferred types.
        layers: names of nodes in the order of the graph.
        count: cuts; each serves the layers up to the next one, so that memory holds the values at few of them.

    Returns:
        Layer → names of float32 values. What is no float32, such as a size, is computed again from those.
    """
    position = {node_name(node): index for index, node in enumerate(model.graph)}
    place = {node: index for index, node in enumerate(model.graph)}
    step = -(-len(layers) // count)
    cuts: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(layers), step):
        values = _frontier(model.graph, place, position[layers[start]])
        cuts.update(dict.fromkeys(layers[start : start + step], values))
    return cuts


def _frontier(graph: ir.Graph, place: Mapping[ir.Node, int], cut: int) -> tuple[str, ...]:
    """Float values in front of the node number `cut` that it or a later node depends on; the input if unknown."""
    everything = tuple(value.name or "" for value in graph.inputs if not value.is_initializer())
    # Nodes of subgraphs read values of the graph too; whatever they belong to, it counts as behind.
    behind = [node for node in ir.traversal.RecursiveGraphIterator(graph) if place.get(node, cut) >= cut]
    waiting = [value for node in behind for value in node.inputs]
    found: dict[str, None] = {}
    while waiting:
        value = waiting.pop()
        if value is None or value.is_initializer():
            continue
        producer = value.producer()
        if producer is None:
            if value.is_graph_input():
                found[value.name or ""] = None
        elif producer in place and place[producer] < cut and producer.op_type != "Constant":
            if value.dtype == ir.DataType.FLOAT:
                found[value.name or ""] = None
            elif value.dtype is None:
                return everything
            else:
                waiting.extend(producer.inputs)
    return tuple(found)


def tail_of(model: ir.Model, values: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph behind the values, which become its inputs; `model` is changed."""
    graph = model.graph
    made = {value.name: value for node in graph for value in node.outputs}
    for name in values:
        value = made.get(name)
        if value is None:
            continue  # the graph's own input
        entry = ir.Value(name=name, shape=value.shape, type=value.type)
        value.name = f"{name}/in_front"
        ir.convenience.replace_all_uses_with(value, entry)
        graph.inputs.append(entry)
    RemoveUnusedNodesPass()(model)
    for value in list(graph.inputs):
        if value.name not in values:
            graph.inputs.remove(value)
    return ir.to_proto(model)


class TailSession:
    """A tail in ONNX Runtime, with one thread; raises `EngineError` where that rejects it."""

    def __init__(self, tail: onnx.ModelProto) -> None:
        with session_errors("rejects a graph under comparison"):
            self._session = import_onnxruntime().InferenceSession(
                tail.SerializeToString(), session_options(threads=1), providers=["CPUExecutionProvider"]
            )
        self._inputs = [value.name for value in self._session.get_inputs()]

    def run(self, values: Mapping[str, FloatArray]) -> NDArray[np.float32]:
        """Logits [N, C, h, w] of the values at the cut; raises `EngineError` where ONNX Runtime fails."""
        with session_errors("failed in a graph under comparison"):
            logits: NDArray[np.float32] = self._session.run(None, {name: values[name] for name in self._inputs})[0]
        return logits
