"""Helpers of graph passes: node names, nodes kept in FP32, insertion of nodes after a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class KeptNode:
    """Node that stays in FP32.

    Attributes:
        name: the node's name.
        op: its operator.
        reason: reason in words.
        module: path of its PyTorch module, where it is known.
    """

    name: str
    op: str
    reason: str
    module: str | None = None


def node_name(node: ir.Node) -> str:
    """Name of a node in reports: its own, or that of its first output."""
    return node.name or node.outputs[0].name or "?"


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Insert nodes right after the producer of a value, or at the start of the graph for a graph input."""
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    else:
        graph.insert_before(graph[0], nodes)
