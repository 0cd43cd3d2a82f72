from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from atrous.exporter.graph_precision import graph_precision

WEIGHT = np.ones((3, 3, 1, 1), np.float16)
Nodes = list[onnx.NodeProto]


def graph(nodes: Nodes, tensors: list[onnx.TensorProto], name: str = "body") -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3, "h", "w"])],
        tensors,
    )


def model(nodes: Nodes, tensors: list[onnx.TensorProto] | None = None) -> onnx.ModelProto:
    return helper.make_model(graph(nodes, tensors or []))


CONV = helper.make_node("Conv", ["image", "w"], ["logits"])
CONSTANT = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT))
CAST = helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16)


def function() -> onnx.ModelProto:
    made = model([helper.make_node("Layer", ["image"], ["logits"], domain="local")])
    made.functions.append(
        helper.make_function("local", "Layer", ["image"], ["logits"], [CONSTANT, CONV], [helper.make_opsetid("", 18)])
    )
    return made


def branch(*, constant: bool) -> onnx.ModelProto:
    nodes, tensors = ([CONSTANT, CONV], []) if constant else ([CONV], [numpy_helper.from_array(WEIGHT, "w")])
    inner = graph(nodes, tensors, "then")
    return model([helper.make_node("If", ["c"], ["logits"], then_branch=inner, else_branch=inner)])


@pytest.mark.parametrize(
    "made",
    [
        model([CONV], [numpy_helper.from_array(WEIGHT, "w")]),
        model([CONSTANT, CONV]),
        model([CAST, CONV]),
        model([helper.make_node("Cast", ["image"], ["brain"], to=TensorProto.BFLOAT16), CONV]),
        function(),
        branch(constant=True),
        branch(constant=False),
    ],
    ids=["initializer", "constant", "cast", "bfloat16", "function", "constant in a branch", "initializer in a branch"],
)
def test_half_precision_wherever_it_sits(made: onnx.ModelProto) -> None:
    assert graph_precision(made) == "fp16"


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"])
def test_quantized_operators(op: str) -> None:
    assert graph_precision(model([CONSTANT, helper.make_node(op, ["image", "w"], ["logits"])])) == "int8"


def test_single_precision() -> None:
    back = helper.make_node("Cast", ["image"], ["w"], to=TensorProto.FLOAT)
    assert graph_precision(model([back, CONV], [numpy_helper.from_array(WEIGHT.astype(np.float32), "w")])) == "fp32"
