from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_graphs import PLAIN

from atrous.bundle import Bundle
from atrous.calibration.plan import QuantizationPlan, plan_quantization
from atrous.calibration.qdq import quantize_graph
from atrous.calibration.sensitivity import Sensitivity, measure_sensitivity, rank_layers, sensitivity_batches
from atrous.exporter.activations.session import ActivationSession
from atrous.exporter.passes import run_passes
from atrous.manifest import InputSpec, OutputSpec, SizePolicy
from atrous.runtime.backends.onnxruntime import OnnxSession
from atrous.runtime.postprocess import upsample_labels
from atrous.runtime.preprocess import Geometry

OUTPUT = OutputSpec(stride=8)


@pytest.fixture(scope="module")
def graph(tiny_bundle: Bundle) -> onnx.ModelProto:
    return run_passes(tiny_bundle.path / "model.fp32.onnx", [])


@pytest.fixture(scope="module")
def batches() -> list[NDArray[np.float32]]:
    """Smooth pictures, so that classes have regions."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((96, 64), 3) for _ in range(2)]
    return [np.asarray(picture, np.float32).transpose(2, 0, 1)[None].copy() for picture in coarse]


@pytest.fixture(scope="module")
def plan(graph: onnx.ModelProto) -> QuantizationPlan:
    return plan_quantization(graph)


@pytest.fixture(scope="module")
def amax(graph: onnx.ModelProto, plan: QuantizationPlan, batches: list[NDArray[np.float32]]) -> dict[str, float]:
    """Tensor → its maximum, and 40 times that for what c2 reads."""
    session = ActivationSession(graph, plan.tensors)
    found = dict.fromkeys(plan.tensors, 0.0)
    for batch in batches:
        for name, value in session.run(batch).items():
            found[name] = max(found[name], float(np.abs(value).max()))
    return {**found, "r1": 40 * found["r1"]}


@pytest.fixture(scope="module")
def found(
    graph: onnx.ModelProto, plan: QuantizationPlan, amax: dict[str, float], batches: list[NDArray[np.float32]]
) -> dict[str, Sensitivity]:
    return measure_sensitivity(graph, plan, amax, batches, OUTPUT)


def agreement(graph: onnx.ModelProto, other: onnx.ModelProto, batches: list[NDArray[np.float32]]) -> float:
    same = []
    sessions = [OnnxSession(each.SerializeToString(), name="a graph") for each in (graph, other)]
    geometry = Geometry((64, 96), (64, 96), "none")
    for batch in batches:
        logits = (session.run(batch)[0] for session in sessions)
        first, second = (upsample_labels(each, geometry, align_corners=False) for each in logits)
        same.append(first == second)
    return float(np.mean(same))


def test_every_layer_is_measured_as_with_finished_graphs(
    graph: onnx.ModelProto,
    plan: QuantizationPlan,
    amax: dict[str, float],
    batches: list[NDArray[np.float32]],
    found: dict[str, Sensitivity],
) -> None:
    assert list(found) == ["c1", "c2", "c3"]
    whole = agreement(graph, quantize_graph(graph, plan, amax), batches)
    for name, each in found.items():
        alone = agreement(graph, quantize_graph(graph, plan.only([name]), amax), batches)
        kept = agreement(graph, quantize_graph(graph, plan.without({name: ""}), amax), batches)
        assert each.alone_drop == pytest.approx(100 * (1 - alone), abs=1e-9)
        assert each.kept_gain == pytest.approx(100 * (kept - whole), abs=1e-9)


def test_the_layer_with_a_wrong_range_stands_out(found: dict[str, Sensitivity]) -> None:
    assert rank_layers(found)[0] == "c2"
    assert found["c2"].alone_drop > 10 * max(found["c1"].alone_drop, found["c3"].alone_drop)
    assert found["c2"].kept_gain > 0
    assert found["c1"].sqnr_db > 30 > found["c2"].sqnr_db
    assert found["c2"].sqnr_db + 10 > found["c3"].sqnr_db  # which inherits the noise


def test_sqnr_is_that_of_the_outputs(
    graph: onnx.ModelProto,
    plan: QuantizationPlan,
    amax: dict[str, float],
    batches: list[NDArray[np.float32]],
    found: dict[str, Sensitivity],
) -> None:
    exact, quantized = (ActivationSession(each, ["c1"]) for each in (graph, quantize_graph(graph, plan, amax)))
    expected = np.stack([exact.run(batch)["c1"] for batch in batches])
    error = expected - np.stack([quantized.run(batch)["c1"] for batch in batches])
    assert found["c1"].sqnr_db == pytest.approx(10 * np.log10((expected**2).mean() / (error**2).mean()), abs=1e-3)


def test_equals_are_ranked_by_what_is_won() -> None:
    values = {"a": Sensitivity(30, 0.1, 0.0), "b": Sensitivity(30, 0.2, 0.0), "c": Sensitivity(30, 0.1, 0.05)}
    assert rank_layers(values) == ["b", "c", "a"]


def test_ctrl_c_ends_it(
    graph: onnx.ModelProto, plan: QuantizationPlan, amax: dict[str, float], batches: list[NDArray[np.float32]]
) -> None:
    def interrupt(done: int) -> None:
        assert done == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(graph, plan, amax, batches, OUTPUT, progress=interrupt)


class TestBatches:
    @pytest.fixture
    def inputs(self) -> InputSpec:
        sizes = SizePolicy((64, 64), (512, 512), (1024, 1024), multiple=16)
        return InputSpec(sizes, mean=PLAIN.mean, std=PLAIN.std, scale=1.0, pad_value=(0, 0, 0))

    def test_the_middle_of_large_pictures(self, inputs: InputSpec, rng: np.random.Generator) -> None:
        picture = rng.integers(0, 256, (300, 500, 3), np.uint8)
        (batch,) = sensitivity_batches([picture], inputs)
        assert batch.shape == (1, 3, 256, 256)
        np.testing.assert_array_equal(batch[0].transpose(1, 2, 0), picture[22:278, 122:378])

    def test_small_pictures_are_padded(self, inputs: InputSpec) -> None:
        (batch,) = sensitivity_batches([np.full((50, 300, 3), 9, np.uint8)], inputs)
        assert batch.shape == (1, 3, 64, 256)
        assert (batch[0, :, :50] == 9).all()
        assert (batch[0, :, 50:] == 0).all()

    def test_a_smaller_maximum(self, inputs: InputSpec) -> None:
        small = dataclasses.replace(inputs, size=SizePolicy((32, 32), (64, 96), (128, 192), multiple=8))
        (batch,) = sensitivity_batches([np.zeros((300, 300, 3), np.uint8)], small)
        assert batch.shape == (1, 3, 128, 192)

    def test_four_spread_evenly(self, inputs: InputSpec) -> None:
        pictures = [np.full((64, 64, 3), index, np.uint8) for index in range(10)]
        assert [batch[0, 0, 0, 0] for batch in sensitivity_batches(pictures, inputs)] == [0, 2, 5, 7]
        assert len(sensitivity_batches(pictures[:3], inputs)) == 3

    @pytest.mark.parametrize(("size", "expected"), [((368, 480), 4), ((513, 513), 3), ((1024, 2048), 1)])
    def test_fewer_where_one_large_size_is_taken(self, inputs: InputSpec, size: tuple[int, int], expected: int) -> None:
        fixed = dataclasses.replace(inputs, size=SizePolicy(size, size, size, multiple=1))
        pictures = [np.zeros((100, 100, 3), np.uint8)] * 5
        assert [batch.shape for batch in sensitivity_batches(pictures, fixed)] == [(1, 3, *size)] * expected

    def test_stretched_whole(self, inputs: InputSpec) -> None:
        stretched = dataclasses.replace(inputs, resize="stretch", size=SizePolicy((96, 96), (96, 96), (96, 96), 1))
        (batch,) = sensitivity_batches([np.zeros((300, 500, 3), np.uint8)], stretched)
        assert batch.shape == (1, 3, 96, 96)
