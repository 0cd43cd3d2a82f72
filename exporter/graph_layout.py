"""ONNX graphs whose layout is another one: channels last, pixels of 8 bits, several outputs, or labels at the end.

TensorFlow's DeepLab has all of these. Nodes are added or taken away such that what is left takes [N, 3, H, W] float32
and returns [N, C, h, w] float32, and computes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ..arrays import FloatArray
from ..errors import ExportError
from ..runtime.backends.onnxruntime import OnnxSession
from .final_activation import find_final_activation

IMAGE: Final = "image"
#: What `adapt_layout` says it changed.
CHANNELS_LAST: Final = "image channels last"
PIXELS: Final = "pixels of 8 bits"
LOGITS_LAST: Final = "logits channels last"
ARGMAX: Final = "ArgMax removed"
_TO_LAST: Final = [0, 2, 3, 1]
_TO_FIRST: Final = [0, 3, 1, 2]


def select_output(model: onnx.ModelProto, output: str | int | None, *, name: str) -> None:
    """Keep one output of a graph, by name or position, and the nodes that it needs.

    Raises:
        ExportError: there is no such output, or there are several and none is named.
    """
    outputs = list(model.graph.output)
    listed = ", ".join(f"{value.name} {dims_of(value)}" for value in outputs)
    if output is None:
        if len(outputs) != 1:
            raise ExportError(
                f"{name} has {len(outputs)} outputs: {listed}. Name the logits: --output NAME, PackOptions(output=NAME)"
            )
        return
    names: list[str | int] = [value.name for value in outputs]
    if output not in names and output not in range(len(outputs)):
        raise ExportError(f"{name} has no output {output!r}; its outputs are {listed}")
    chosen = outputs[names.index(output) if output in names else int(output)]
    del model.graph.output[:]
    model.graph.output.append(chosen)
    _remove_unused(model)


def adapt_layout(model: onnx.ModelProto, channels: frozenset[int], *, name: str, bands: int = 3) -> tuple[str, ...]:
    """Change a graph with one input and one output such that it takes [N, bands, H, W] and returns [N, C, h, w].

    Args:
        model: changed in place.
        channels: numbers of channels that the classes allow.
        name: what messages call the graph.
        bands: channels of the image.

    Returns:
        What was changed, for the bundle's record; empty for a graph that has the layout.

    Raises:
        ExportError: labels at the end do not say which logits they were.
    """
    changed = [*_remove_argmax(model, name), *_adapt_image(model, bands)]
    logits = model.graph.output[0]
    dims = dims_of(logits)
    if CHANNELS_LAST in changed and len(dims) == 4 and dims[3] in channels:
        _transpose_output(model, logits, dims)
        changed.append(LOGITS_LAST)
    return tuple(changed)


def check_adapted(
    original: onnx.ModelProto,
    changed: tuple[str, ...],
    run: Callable[[FloatArray], NDArray[Any]],
    shape: tuple[int, int, int, int],
) -> None:
    """Compare an adapted graph with the original on an image of random pixels.

    Args:
        original: the graph before `adapt_layout`.
        changed: what `adapt_layout` returned.
        run: computes what the adapted graph does, `shape` → [1, C, h, w].
        shape: shape [1, bands, H, W] of the image.

    Raises:
        ExportError: the logits or labels differ.
    """
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    image = inputs_of(original)[0]
    fed = pixels.transpose(_TO_LAST) if CHANNELS_LAST in changed else pixels
    fed = fed.astype(np.uint8) if takes_pixels(image) else fed
    expected = OnnxSession(original.SerializeToString(), name="the original graph", optimize=False).run(fed)
    actual = run(pixels)
    if ARGMAX in changed:
        expected, actual = expected.reshape(-1), actual.argmax(axis=1).reshape(-1)
    elif LOGITS_LAST in changed:
        expected = expected.transpose(_TO_FIRST)
    if not np.array_equal(expected, actual):
        raise ExportError(
            f"after adapting the graph ({', '.join(changed)}) its output differs from the original's. Nothing was "
            "written. Export it with channels first, from [N, 3, H, W] to its logits."
        )


def takes_pixels(image: onnx.ValueInfoProto) -> bool:
    """True for an input of uint8 pixels, which the graph normalizes itself."""
    return image.type.tensor_type.elem_type == TensorProto.UINT8


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs without weights, which old exporters list among the inputs too."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def dims_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """Axis lengths; a name or `?` for a dynamic axis (some exporters write −1)."""
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    ]


def _adapt_image(model: onnx.ModelProto, bands: int) -> list[str]:
    """Put a Transpose, and a conversion to 8 bits, behind a new input [N, bands, H, W] float32."""
    graph = model.graph
    image = inputs_of(model)[0]
    dims = dims_of(image)
    is_last = len(dims) == 4 and dims[3] == bands and dims[1] != bands
    is_pixels = takes_pixels(image)
    if not (is_last or is_pixels) or len(dims) != 4:
        return []
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    first = [dims[axis] for axis in _TO_FIRST] if is_last else dims
    new = helper.make_tensor_value_info(_free(IMAGE, taken | {image.name}), TensorProto.FLOAT, first)
    value, nodes = new.name, []
    if is_last:
        after = _free("image_channels_last", taken) if is_pixels else image.name
        nodes.append(helper.make_node("Transpose", [value], [after], perm=_TO_LAST))
        value = after
    if is_pixels:
        # Rounded and clipped, because a conversion of what 8 bits cannot hold is undefined.
        low, high, rounded, clipped = (_free(f"pixels_{part}", taken) for part in ("low", "high", "rounded", "clipped"))
        graph.initializer.extend(
            helper.make_tensor(each, TensorProto.FLOAT, [], [bound]) for each, bound in ((low, 0.0), (high, 255.0))
        )
        nodes += [
            helper.make_node("Round", [value], [rounded]),
            helper.make_node("Clip", [rounded, low, high], [clipped]),
            helper.make_node("Cast", [clipped], [image.name], to=TensorProto.UINT8),
        ]
    _put_first(graph, nodes)
    graph.input.remove(image)
    graph.input.insert(0, new)
    return ([CHANNELS_LAST] if is_last else []) + ([PIXELS] if is_pixels else [])


def _remove_argmax(model: onnx.ModelProto, name: str) -> list[str]:
    """Make the logits the output of a graph that ends in labels, which is exact: the runtime takes the same maximum."""
    output = model.graph.output[0]
    found = find_final_activation(model)
    if found is None or found.operator != "ArgMax":
        return []
    producers = {each: node for node in model.graph.node for each in node.output}
    node = producers[output.name]
    while node.op_type != "ArgMax":
        if node.op_type not in ("Cast", "Identity", "Squeeze", "Unsqueeze"):
            raise ExportError(
                f"{name} ends in labels, which a {node.op_type} moves after ArgMax, so that the logits are of another "
                f"size. Export it up to {found.nodes[0].input[0]!r}, the input of ArgMax."
            )
        node = producers[node.input[0]]
    logits = node.input[0]
    inferred = onnx.shape_inference.infer_shapes(model)
    known = {value.name: value for value in inferred.graph.value_info}
    if logits not in known or len(known[logits].type.tensor_type.shape.dim) != 4:
        raise ExportError(
            f"{name} ends in labels (ArgMax), and the shape of their logits {logits!r} is not known. Export it up to "
            "them, with their shape."
        )
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0) % 4
    if axis not in (1, 3):
        raise ExportError(f"{name} ends in an ArgMax over axis {axis}; expected the channels, axis 1 or 3")
    del model.graph.output[:]
    model.graph.output.append(known[logits])
    _remove_unused(model)
    return [ARGMAX]


def _transpose_output(model: onnx.ModelProto, logits: onnx.ValueInfoProto, dims: list[int | str]) -> None:
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    new = helper.make_tensor_value_info(
        _free("logits", taken), logits.type.tensor_type.elem_type, [dims[axis] for axis in _TO_FIRST]
    )
    model.graph.node.append(helper.make_node("Transpose", [logits.name], [new.name], perm=_TO_FIRST))
    del model.graph.output[:]
    model.graph.output.append(new)


def _put_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _free(name: str, taken: set[str]) -> str:
    """The name, or with underscores behind it where it is taken; taken from now on."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _remove_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and weights that the output does not need; a graph with subgraphs keeps all."""
    graph = model.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    inputs = [value for value in graph.input if value.name in needed or value in inputs_of(model)]
    for field, values in ((graph.node, kept[::-1]), (graph.initializer, weights), (graph.input, inputs)):
        del field[:]
        field.extend(values)
