"""`optimize`: forms chosen by measurement, kept only where the whole network is faster and the same."""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import needs
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tiny_graphs import Conv, local_layers, make_bundle

import atrous
from atrous.bundle import Bundle
from atrous.calibration.options import QuantizeOptions
from atrous.errors import EngineError
from atrous.evidence import CpuKind, Tuning
from atrous.exporter.optimize.layers import cut_layers
from atrous.exporter.optimize.optimize import optimize, rule_for
from atrous.exporter.optimize.timing import Timing, fastest, time_in_turns
from atrous.exporter.passes import run_passes
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.verify.bundle import verify_bundle
from atrous.manifest import Manifest
from atrous.runtime.backends import BACKENDS, choose_artifact, open_reference
from atrous.runtime.backends.cpu import this_cpu
from atrous.runtime.backends.notices import warn_once

_SIZE = (96, 96)
#: No multiple of the blocks that ONNX Runtime's faster kernels take, so that its dilated form multiplies by zeros.
_CHANNELS = 250


def wide_layers(dilation: int) -> list[Conv]:
    """A network of stride 8 whose cost is one atrous convolution."""
    rng = np.random.default_rng(3)

    def weight(outputs: int, inputs: int, size: int) -> NDArray[np.float32]:
        return (rng.standard_normal((outputs, inputs, size, size)) / np.sqrt(inputs * size**2)).astype(np.float32)

    stem = Conv(weight(_CHANNELS, 3, 1), stride=8, relu=True)
    context = Conv(weight(_CHANNELS, _CHANNELS, 3), dilation=dilation, relu=True)
    return [stem, context, Conv(weight(4, _CHANNELS, 1))]


@pytest.fixture
def sparse(tmp_path: Path) -> Bundle:
    """A rate that leaves one of nine taps inside of the 12 × 12 map: a sum over taps is far faster."""
    return make_bundle(tmp_path / "sparse.atrous", wide_layers(13), fixed=_SIZE)


@pytest.fixture
def images() -> NDArray[np.float32]:
    return np.random.default_rng(5).uniform(0, 255, (1, 3, *_SIZE)).astype(np.float32)


def pace(monkeypatch: pytest.MonkeyPatch, **milliseconds: float) -> None:
    """Let every call run once, and state what it took: what is decided must not depend on this machine's load."""

    def stated(calls: Mapping[str, Callable[[], object]], _base: str) -> dict[str, Timing]:
        for call in calls.values():
            call()
        return {name: Timing([milliseconds[name]] * 9) for name in calls}

    monkeypatch.setattr(sys.modules["atrous.exporter.optimize.optimize"], "time_in_turns", stated)


@pytest.fixture(autouse=True)
def _taps_are_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    pace(monkeypatch, dilated=3.0, deinterlaced=2.0, taps=1.0, canonical=4.0, tuned=2.0)


def tuned_of(bundle: Bundle) -> list[Tuning]:
    return [artifact.tuned_for for artifact in bundle.manifest.artifacts if artifact.tuned_for is not None]


def as_measured_on(bundle: Bundle, change: Callable[[Tuning], Tuning]) -> Bundle:
    """The bundle with the place of its measurements changed."""
    artifacts = tuple(
        each if each.tuned_for is None else dataclasses.replace(each, tuned_for=change(each.tuned_for))
        for each in bundle.manifest.artifacts
    )
    return Bundle(bundle.path, dataclasses.replace(bundle.manifest, artifacts=artifacts))


def test_a_faster_form_is_kept_and_loaded(sparse: Bundle, images: NDArray[np.float32]) -> None:
    before = sparse.find(kind="onnx")
    spec = BACKENDS["onnxruntime"]
    bundle, report = optimize(sparse, backend=spec.name)
    (graph,) = report.graphs
    assert (report.backend, graph.reason, [layer.form for layer in graph.layers]) == (spec.name, None, ["taps"])
    (tuning,) = tuned_of(bundle)
    assert (tuning.backend, tuning.version, tuning.cpu) == (spec.name, spec.version, this_cpu())
    assert tuning.layers[0].ms["taps"] < tuning.layers[0].ms["dilated"]
    assert tuning.tuned_ms < tuning.canonical_ms
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest

    assert bundle.find(kind="onnx") == before
    segmenter = atrous.load(bundle, backend=spec.name)
    assert segmenter.backend.artifact.kind == "tuned"
    assert open_reference(bundle).artifact == before
    expected = open_reference(bundle).infer(images)
    np.testing.assert_allclose(segmenter.backend.infer(images), expected, atol=1e-4 * np.abs(expected).max())
    checked = [check.artifact for check in verify_bundle(bundle).checks]
    assert f"{graph.tuned} in onnxruntime (CPU)" in checked


@needs.OPENVINO.importable("openvino")
def test_a_network_that_is_not_faster_is_not_kept(sparse: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pace(monkeypatch, dilated=3.0, deinterlaced=2.0, taps=1.0, canonical=2.0, tuned=2.0)
    bundle, report = optimize(sparse)
    (graph,) = report.graphs
    assert report.backend == "openvino"
    assert graph.layers[0].ms == {"dilated": 3.0, "deinterlaced": 2.0, "taps": 1.0}
    assert "not faster beyond noise" in str(graph.reason)
    assert (graph.tuned, tuned_of(bundle)) == (None, [])


def test_other_backends_and_machines_run_the_canonical_graph(sparse: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    spec = BACKENDS["onnxruntime"]
    bundle, _ = optimize(sparse, backend=spec.name)
    with caplog.at_level(logging.INFO):
        assert choose_artifact(spec, bundle).kind == "tuned"
        assert "onnxruntime runs tuned/" in caplog.text
        assert choose_artifact(BACKENDS["openvino"], bundle).kind == "onnx"
    other_cpu = as_measured_on(bundle, lambda tuning: dataclasses.replace(tuning, cpu=CpuKind("another", ("sve",))))
    other_version = as_measured_on(bundle, lambda tuning: dataclasses.replace(tuning, version="0.1"))
    warn_once.cache_clear()
    for moved, why in (
        (other_cpu, r"tuned for another \(sve\); this is "),
        (other_version, "onnxruntime 0.1; installed"),
    ):
        caplog.clear()
        assert choose_artifact(spec, moved).kind == "onnx"
        assert re.search(why, caplog.text)
        assert f"atrous optimize {bundle.path}" in caplog.text


def test_a_network_without_atrous_convolutions_stays(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "plain.atrous", local_layers(4), fixed=(64, 64))
    before = bundle.manifest
    optimized, report = optimize(bundle, backend="onnxruntime")
    assert optimized.manifest == before
    assert report.graphs[0].layers == ()
    assert report.graphs[0].reason == "it has no dilated convolution"


def test_a_range_of_sizes_is_measured_at_its_best_one(tmp_path: Path) -> None:
    sizes = DynamicSize((64, 64), _SIZE, (128, 128))
    bundle, report = optimize(
        make_bundle(tmp_path / "range.atrous", wide_layers(13), sizes=sizes), backend="onnxruntime"
    )
    (layer,) = report.graphs[0].layers
    assert set(layer.ms) == {"dilated", "deinterlaced", "taps"}
    for tuning in tuned_of(bundle):  # its taps are not cut at the border, so that dilated may win
        assert tuning.input == (1, 3, *_SIZE)
        assert len({shape[2:] for check in bundle.manifest.verification[-1:] for shape in check.inputs}) > 1


def test_optimizing_again_replaces_and_a_new_source_removes(sparse: Bundle) -> None:
    bundle, _ = optimize(sparse, backend="onnxruntime")
    again, _ = optimize(bundle, backend="onnxruntime")
    assert len(tuned_of(again)) == 1
    source = again.find(kind="onnx")
    assert source is not None
    replaced = again.manifest.with_artifact(dataclasses.replace(source, sha256="0" * 64))
    assert [artifact.kind for artifact in replaced.artifacts] == ["onnx"]
    assert not any(check.artifact.startswith("tuned/") for check in replaced.verification)


def test_int8_layers_are_cut_with_their_quantization(sparse: Bundle, rng: np.random.Generator) -> None:
    pictures = [rng.integers(0, 256, (*_SIZE, 3), np.uint8) for _ in range(3)]
    bundle, _ = atrous.quantize(sparse, images=pictures, options=QuantizeOptions(max_images=3))
    model = run_passes(onnx.load(bundle.path / "model.int8.onnx"), [])
    ((layer,), left) = cut_layers(model, _SIZE)
    operators = [node.op_type for node in layer.graph.graph.node]
    assert left == []
    assert operators.count("QuantizeLinear") == 1
    assert operators.count("DequantizeLinear") >= 2
    optimized, report = optimize(bundle, backend="onnxruntime", precision="int8")
    (graph,) = report.graphs
    assert graph.precision == "int8"
    assert [each.name for each in graph.layers] == [layer.name]
    assert all(each.precision == "int8" for each in optimized.manifest.artifacts if each.kind == "tuned")


def test_layers_of_the_same_cost_are_timed_once(tmp_path: Path) -> None:
    stem, context, head = wide_layers(2)
    bundle = make_bundle(tmp_path / "twice.atrous", [stem, context, context, head], fixed=_SIZE)
    model = run_passes(onnx.load(bundle.path / "model.fp32.onnx"), [])
    (first, second), _ = cut_layers(model, _SIZE)
    assert first.cost == second.cost
    assert first.name != second.name


class TestRules:
    def test_engines_and_gpus_stay_dilated_by_rule(self, sparse: Bundle) -> None:
        for name, words in (("tensorrt", "while it builds"), ("onnxruntime-cuda", "libraries of GPUs")):
            bundle, report = optimize(sparse, backend=name)
            assert bundle.manifest == sparse.manifest
            assert words in str(report.graphs[0].reason)

    def test_an_absent_backend_is_said_with_its_command(self) -> None:
        (package,) = BACKENDS["openvino"].packages
        absent = dataclasses.replace(package, module="not_here")
        rule = rule_for(dataclasses.replace(BACKENDS["openvino"], packages=(absent,)))
        assert rule is not None
        assert "openvino is not installed here" in rule
        assert "pip install 'atrous[cpu]'" in rule

    def test_what_is_not_there_is_refused(self, sparse: Bundle) -> None:
        with pytest.raises(EngineError, match="no int8"):
            optimize(sparse, precision="int8")
        with pytest.raises(EngineError, match="unknown backend"):
            optimize(sparse, backend="abacus")


class TestTiming:
    @pytest.mark.parametrize(
        ("samples", "expected"),
        [
            ([90.0] * 9, True),
            ([97.0] * 9, False),  # within the margin
            ([80.0, 120.0] * 4 + [80.0], False),  # faster in the median, but not reliably
            ([50.0, 50.0], False),  # given up
        ],
    )
    def test_faster_means_beyond_noise(self, samples: list[float], expected: bool) -> None:
        assert Timing(samples).is_faster_than(Timing([100.0] * 9)) is expected

    def test_rounds_are_compared_with_each_other(self) -> None:
        slow_spell = [100.0, 100.0, 300.0, 300.0, 300.0, 100.0, 100.0, 100.0, 100.0]
        assert Timing([0.9 * each for each in slow_spell]).is_faster_than(Timing(slow_spell))

    def test_the_base_wins_ties_and_the_smallest_median_wins_otherwise(self) -> None:
        timings = {"dilated": Timing([100.0] * 9), "taps": Timing([99.0] * 9)}
        assert fastest(timings, "dilated") == "dilated"
        timings |= {"taps": Timing([80.0] * 9), "deinterlaced": Timing([70.0] * 9)}
        assert fastest(timings, "dilated") == "deinterlaced"

    def test_what_is_far_slower_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr("atrous.exporter.optimize.timing.time.perf_counter", lambda: now[0])

        def takes(seconds: float) -> Callable[[], None]:
            def call() -> None:
                now[0] += seconds

            return call

        timings = time_in_turns({"dilated": takes(0.01), "slow": takes(0.02), "fast": takes(0.005)}, "dilated")
        assert {name: len(timing.samples_ms) for name, timing in timings.items()} == {
            "dilated": 9,
            "slow": 2,
            "fast": 9,
        }
        assert fastest(timings, "dilated") == "fast"
