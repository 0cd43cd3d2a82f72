"""Paths of the PyTorch modules that the nodes of a graph come from, as `backbone.layer3.0.conv2`."""

from __future__ import annotations

import ast
from typing import Final

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

#: Key of a node's metadata in the graphs that are exported here.
MODULE_KEY: Final = "atrous.module"
#: torch's own key: the path of modules around an operator, outermost first, and the operator itself.
_SCOPES: Final = "pkg.torch.onnx.name_scopes"
_PARAMETERS: Final = (".weight", ".bias")


def name_modules(model: ir.Model, *, inside: str = "") -> None:
    """Put the module of each node in its metadata, in place of everything that torch put there.

    A node that reads a parameter is named after it, because a convolution with which a batch normalization was folded
    has the path of the latter; other nodes have the innermost module that called them.

    Args:
        model: a graph of torch's exporter.
        inside: a module whose content is meant, such as `model.` of a wrapper: it is not in the paths.
    """
    modules = {node: _module(node).removeprefix(inside) for node in model.graph}
    # torch stores on every node the path of its source line on this machine.
    ClearMetadataAndDocStringPass()(model)
    for node, module in modules.items():
        if module:
            node.metadata_props[MODULE_KEY] = module


def _module(node: ir.Node) -> str:
    for value in node.inputs:
        name = (value.name or "") if value is not None and value.is_initializer() else ""
        for ending in _PARAMETERS:
            if name.endswith(ending):
                return name.removesuffix(ending)
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (SyntaxError, ValueError):
        return ""
    return next((str(scope) for scope in reversed(scopes[:-1]) if scope), "")


def module_names(graph: onnx.ModelProto) -> dict[str, str]:
    """Map the names of nodes to the paths of their modules, for those that have one."""
    found = {}
    for node in graph.graph.node:
        for entry in node.metadata_props:
            if entry.key == MODULE_KEY:
                found[node.name or node.output[0]] = entry.value
    return found


def title(name: str, module: str | None) -> str:
    """Name of a node for people: its module and, in brackets, its own."""
    return f"{module} ({name})" if module else name
