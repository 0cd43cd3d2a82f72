from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_graphs import local_layers, save_graph
from tolerances import BACKEND_ABSOLUTE

from atrous.errors import EngineError
from atrous.exporter.activations.session import ActivationSession, input_name


@pytest.fixture
def graph(tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(save_graph(tmp_path / "model.onnx", local_layers(5)))


def test_inner_values_for_inputs_of_changing_shapes(graph: onnx.ModelProto, rng: np.random.Generator) -> None:
    plain = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    session = ActivationSession(graph, ["c4", "image", "r1"])
    for size in [(32, 40), (32, 40), (64, 32), (32, 40), (32, 40), (32, 40)]:
        batch = rng.standard_normal((1, 3, *size)).astype(np.float32)
        values = session.run(batch)
        assert list(values) == ["c4", "image", "r1"]
        assert values["image"] is batch
        assert (values["r1"] >= 0).all()
        expected = plain.run(None, {"image": batch})[0]
        np.testing.assert_allclose(values["c4"], expected, rtol=0, atol=BACKEND_ABSOLUTE)


def test_the_input_alone_needs_no_run(graph: onnx.ModelProto) -> None:
    batch = np.ones((1, 3, 32, 32), np.float32)
    assert ActivationSession(graph, ["image"]).run(batch) == {"image": batch}


def test_an_input_that_does_not_fit_harms_nothing(graph: onnx.ModelProto) -> None:
    session = ActivationSession(graph, ["c4"])
    good = np.ones((1, 3, 32, 32), np.float32)
    expected = session.run(good)["c4"].copy()
    with pytest.raises(EngineError, match=r"failed on an input \[1, 4, 32, 32\]"):
        session.run(np.ones((1, 4, 32, 32), np.float32))
    np.testing.assert_array_equal(session.run(good)["c4"], expected)


def test_a_graph_that_is_none(graph: onnx.ModelProto) -> None:
    graph.graph.node[0].op_type = "Unheard"
    with pytest.raises(EngineError, match="rejects the graph with its activations as outputs"):
        ActivationSession(graph, ["c4"])


def test_the_input_is_not_a_weight(graph: onnx.ModelProto) -> None:
    graph.graph.input.insert(0, onnx.helper.make_tensor_value_info("w0", onnx.TensorProto.FLOAT, [8, 3, 3, 3]))
    assert input_name(graph) == "image"
