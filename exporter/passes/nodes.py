"""Names of a graph's nodes, those that a pass keeps, and nodes put behind a value: shared by the passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class KeptNode:
    """A node that computes in FP32.

    Attributes:
        name: the node's name.
        op: its operator.
        reason: why, in words.
    """

    name: str
    op: str
    reason: str


def node_name(node: ir.Node) -> str:
    """What reports call a node: its name, or that of its first output where it has none."""
    return node.name or node.outputs[0].name or "?"


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Insert nodes right behind what makes a value; an input of the graph is made before everything."""
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    else:
        graph.insert_before(graph[0], nodes)
