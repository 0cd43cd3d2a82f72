from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tiny_graphs import local_layers, save_graph

from atrous.bundle import Bundle
from atrous.errors import CalibrationError, EngineError
from atrous.exporter.activations.ranges import calibration_batches, nodes_out_of_range, observe_ranges
from atrous.exporter.passes import run_passes
from atrous.exporter.passes.magnitudes import Magnitudes
from atrous.exporter.verify import probe_inputs


@pytest.fixture
def graph(tmp_path: Path) -> onnx.ModelProto:
    return run_passes(save_graph(tmp_path / "model.onnx", local_layers(5)), [])


def of(value: float, elements: int = 1) -> Magnitudes:
    seen = Magnitudes()
    seen.add(np.full(elements, value, np.float32))
    return seen


def parse(body: str) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["": 18]> g (float[N, 3, H, W] x) => (float[N, 3, h, w] y) {{ {body} }}'
    return onnx.parser.parse_model(text)


def test_every_float_is_accounted_for(graph: onnx.ModelProto, rng: np.random.Generator) -> None:
    batches = [rng.standard_normal((n, 3, 32, 40)).astype(np.float32) for n in (1, 2)]
    ranges = observe_ranges(graph, batches)
    assert list(ranges) == ["image", "c0", "r0", "c1", "r1", "c2", "r2", "c3", "r3", "c4"]
    assert ranges["image"].max_abs == max(np.abs(batch).max() for batch in batches)
    assert ranges["image"].elements == batches[1].size
    assert ranges["c0"].max_abs >= ranges["r0"].max_abs > 0


def test_a_batch_is_forgotten_before_the_next_is_made(graph: onnx.ModelProto) -> None:
    made: list[weakref.ref[NDArray[np.float32]]] = []

    def batches() -> Iterator[NDArray[np.float32]]:
        for _ in range(4):
            batch = np.ones((1, 3, 32, 32), np.float32)
            made.append(weakref.ref(batch))
            yield batch
            del batch
            # The loop of the consumer still names the last one.
            assert sum(ref() is not None for ref in made) <= 1

    observe_ranges(graph, batches())
    assert len(made) == 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(graph: onnx.ModelProto, value: float) -> None:
    good, bad = np.ones((1, 3, 32, 32), np.float32), np.full((1, 3, 32, 48), value, np.float32)
    with pytest.raises(CalibrationError, match=r"'image' is already NaN or infinite in FP32, on image 2 \[1, 3, 32"):
        observe_ranges(graph, [good, bad])


def test_a_batch_that_does_not_fit(graph: onnx.ModelProto) -> None:
    with pytest.raises(EngineError, match=r"failed on an input \[1, 4, 32, 32\]"):
        observe_ranges(graph, [np.ones((1, 4, 32, 32), np.float32)])


def test_given_pictures_come_before_synthetic_ones(tiny_bundle: Bundle, rng: np.random.Generator) -> None:
    inputs = tiny_bundle.manifest.input
    images = [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(2)]
    batches = list(calibration_batches(images, inputs))
    assert [batch.shape for batch in batches[:2]] == [(1, 3, 40, 56)] * 2
    np.testing.assert_array_equal(batches[0][0, :, :40, :50], images[0].transpose(2, 0, 1))
    for actual, expected in zip(batches[2:], probe_inputs(inputs), strict=True):
        np.testing.assert_array_equal(actual, expected)


class TestNodesOutOfRange:
    def test_what_fits(self) -> None:
        assert nodes_out_of_range(parse("y = Relu(x)"), {"x": of(8000), "y": of(0)}) == {}

    def test_whoever_reads_or_makes_it(self) -> None:
        found = nodes_out_of_range(
            parse("a = Neg(x) [two] b = Neg(a) [three] c = Neg(b) y = Neg(c)"),
            {"x": of(1), "a": of(1), "b": of(9000), "c": of(1), "y": of(1)},
        )
        assert found == dict.fromkeys(["two", "three"], "'b' reaches 9000; the FP16 maximum is 65504")

    def test_values_too_small(self) -> None:
        found = nodes_out_of_range(parse("y = Relu(x)"), {"x": of(1e-6), "y": of(1)})
        assert "'x' has 100% of its non-zero values below 2^-14" in found["y"]

    @pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean", "ReduceSum"])
    def test_long_sums(self, op: str) -> None:
        graph = parse(f"y = {op}(x)")
        assert nodes_out_of_range(graph, {"x": of(20, 3 * 3000), "y": of(20, 3)}) == {}
        found = nodes_out_of_range(graph, {"x": of(20, 3 * 4000), "y": of(20, 3)})
        assert found["y"].startswith("it sums 4000 values of up to 20, which can exceed the FP16 maximum of 65504")
