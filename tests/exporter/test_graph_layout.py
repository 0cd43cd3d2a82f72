"""Graphs of other layouts, packed: the labels are those of the graph as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import atrous
from atrous.errors import ExportError
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.normalization import NO_NORMALIZATION
from atrous.exporter.options import PackOptions
from atrous.exporter.pack import pack

SIZE = (24, 40)
CLASSES = ["a", "b", "c", "d", "e"]
Axes = Sequence[int | str]


def tensorflow(path: Path, *, pixels: bool, labels: bool, size: Axes = SIZE, between: str = "") -> Path:
    """A graph as tf2onnx writes DeepLab: NHWC around a convolution, uint8 in and ArgMax out where asked."""
    rng = np.random.default_rng(2)
    weights = [
        numpy_helper.from_array(rng.standard_normal((5, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.float32(127.5), "half"),
        numpy_helper.from_array(np.float32(1.0), "one"),
    ]
    nodes = []
    value = "pixels"
    if pixels:
        nodes += [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["floats", "half"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "one"], ["normal"]),
        ]
        value = "normal"
    nodes += [
        helper.make_node("Transpose", [value], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "w"], ["scores"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["scores"], ["logits"], perm=[0, 2, 3, 1]),
    ]
    height, width = size
    output, dtype, axes = "logits", TensorProto.FLOAT, [1, height, width, 5]
    if labels:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["labels"], axis=3, keepdims=0))
        output, dtype, axes = "labels", TensorProto.INT64, [1, height, width]
        if between:
            nodes.append(helper.make_node(between, ["labels"], ["moved"], perm=[0, 2, 1]))
            output, axes = "moved", [1, width, height]
    image = helper.make_tensor_value_info(
        "pixels", TensorProto.UINT8 if pixels else TensorProto.FLOAT, [1, height, width, 3]
    )
    graph = helper.make_graph(nodes, "tf", [image], [helper.make_tensor_value_info(output, dtype, axes)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_a_tensorflow_graph(pixels: bool, labels: bool, tmp_path: Path) -> None:
    graph = tensorflow(tmp_path / "tf.onnx", pixels=pixels, labels=labels)
    bundle = pack(
        graph, tmp_path / "tf.atrous", classes=CLASSES, preprocessing=Preprocessing(NO_NORMALIZATION, resize="stretch")
    )
    photo = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), np.uint8)
    fed = photo[None] if pixels else photo[None].astype(np.float32)
    answer = onnxruntime.InferenceSession(str(graph)).run(None, {"pixels": fed})[0]
    expected = answer[0] if labels else answer[0].argmax(axis=-1)
    for backend in ("onnxruntime", "openvino"):
        assert (atrous.load(bundle.path, backend=backend)(photo).labels == expected).mean() > 0.999
    adapted = bundle.manifest.artifacts[0].provenance["adapted"]
    assert ("image channels last" in adapted, "pixels of 8 bits" in adapted) == (True, pixels)
    assert ("ArgMax removed" in adapted, "logits channels last" in adapted) == (labels, True)


def test_pixels_need_no_normalization(tmp_path: Path) -> None:
    graph = tensorflow(tmp_path / "tf.onnx", pixels=True, labels=False)
    with pytest.raises(ExportError, match=r"is UINT8, pixels that the graph normalizes itself; say so"):
        pack(graph, tmp_path / "tf.atrous", classes=CLASSES)


def test_labels_that_are_moved_after_argmax(tmp_path: Path) -> None:
    graph = tensorflow(tmp_path / "tf.onnx", pixels=False, labels=True, between="Transpose")
    with pytest.raises(ExportError, match="ends in labels, which a Transpose moves after ArgMax"):
        pack(graph, tmp_path / "tf.atrous", classes=CLASSES)


def two_outputs(path: Path) -> Path:
    model = onnx.load(tensorflow(path, pixels=False, labels=False))
    model.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5, *SIZE]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("output", ["scores", 1])
def test_one_of_several_outputs(output: str | int, tmp_path: Path) -> None:
    graph = two_outputs(tmp_path / "two.onnx")
    bundle = pack(graph, tmp_path / "two.atrous", classes=CLASSES, options=PackOptions(output=output))
    kept = onnx.load(bundle.path / bundle.manifest.artifacts[0].file)
    assert [value.name for value in kept.graph.output] == ["scores"]
    assert [node.op_type for node in kept.graph.node] == ["Transpose", "Transpose", "Conv"]


def test_outputs_must_be_named(tmp_path: Path) -> None:
    graph = two_outputs(tmp_path / "two.onnx")
    with pytest.raises(ExportError, match=r"has 2 outputs: logits \[1, 24, 40, 5\], scores .*--output NAME"):
        pack(graph, tmp_path / "two.atrous", classes=CLASSES)
    with pytest.raises(ExportError, match=r"has no output 'seg'; its outputs are logits"):
        pack(graph, tmp_path / "two.atrous", classes=CLASSES, options=PackOptions(output="seg"))
