"""A bundle gets its INT8 graph whole or not at all, and the report says what was done."""

from __future__ import annotations

import dataclasses
import json
import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image
from tiny_graphs import Conv, local_layers, make_bundle, save_graph
from tiny_networks import TinyDeepLab

import atrous
from atrous.bundle import Bundle, extend_bundle
from atrous.calibration.options import DEFAULT_METHOD, QuantizeOptions
from atrous.calibration.quantize import CALIBRATION_FILE, HTML_FILE, INT8_FILE, TEXT_FILE, quantize
from atrous.calibration.report.model import QuantizationReport
from atrous.errors import BundleError, CalibrationError, EngineError, EvaluationError
from atrous.exporter.export import export
from atrous.exporter.pack import pack
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.verify import covering_probes
from atrous.exporter.verify.bundle import verify_bundle
from atrous.runtime.evaluation import evaluate, pair_by_stem
from atrous.runtime.segmenter import load

FILES = {INT8_FILE, CALIBRATION_FILE, HTML_FILE, TEXT_FILE}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of smooth shapes; the network is random, so noise would be all ties. Read-only."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    for index in range(8):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((80, 64 - index), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def made(
    tiny_bundle: Bundle, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, QuantizationReport]:
    """The tiny bundle with its INT8 graph, and the report; read-only."""
    path = tmp_path_factory.mktemp("made") / "tiny.atrous"
    return quantize(Bundle.open(shutil.copytree(tiny_bundle.path, path)), images=images)


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """Five convolutions for 32×32 to 128×128, to be changed; the first and the last stay in higher precision."""
    return Bundle.open(shutil.copytree(tiny_bundle.path, tmp_path / "out" / "tiny.atrous"))


@pytest.fixture
def quantized(made: tuple[Bundle, QuantizationReport], tmp_path: Path) -> Bundle:
    """A copy of what was made, to be changed."""
    return Bundle.open(shutil.copytree(made[0].path, tmp_path / "quantized.atrous"))


@pytest.fixture
def damaged(images: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the pictures, some of them unreadable."""

    def damage(*names: str) -> Path:
        folder = Path(shutil.copytree(images, tmp_path / "damaged"))
        for name in names:
            (folder / name).write_bytes(b"\x89PNG")
        return folder

    return damage


@pytest.fixture
def masks(bundle: Bundle, images: Path, tmp_path: Path) -> Path:
    """The FP32 labels with some rows changed, and a stripe of 9 for void."""
    folder = tmp_path / "masks"
    folder.mkdir()
    segmenter = load(bundle.path, backend="onnxruntime")
    for path in images.iterdir():
        labels = segmenter(path).labels.copy()
        labels[:, :5] = 9
        labels[:10] = 1
        Image.fromarray(labels).save(folder / path.name)
    return folder


class TestBundle:
    def test_holds_what_was_made(self, made: tuple[Bundle, QuantizationReport], tiny_bundle: Bundle) -> None:
        extended, report = made
        fp32, int8 = extended.manifest.artifacts
        assert (int8.kind, int8.precision, int8.file) == ("onnx", "int8", INT8_FILE)
        assert int8.provenance["from"] == fp32.sha256
        assert int8.provenance["images"] == report.images == 8
        assert int8.provenance["int8_layers"] == 3
        assert int8.provenance["kept_layers"].keys() == {"c0", "c4"}
        assert contents(extended.path).keys() == {*contents(tiny_bundle.path), *FILES}
        extended.check()
        (check,) = [each for each in extended.manifest.verification if each.artifact == INT8_FILE]
        assert check.passed
        assert check.argmax_agreement == report.accuracy.agreement > 0.9
        assert check.miou_delta is None
        inputs = extended.manifest.input
        claimed = {probe.shape(inputs) for probe in covering_probes(inputs, noise=False)}
        assert set(check.inputs) | {each.input for each in check.skipped} >= claimed

    def test_the_graph_is_int8_and_runs_everywhere(self, made: tuple[Bundle, QuantizationReport], images: Path) -> None:
        extended, _ = made
        graph = onnx.load(extended.path / INT8_FILE)
        onnx.checker.check_model(graph, full_check=True)
        assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.graph.node}
        for check in verify_bundle(extended, images=sorted(images.iterdir())).checks:
            assert check.passed, check
        labels = atrous.load(extended.path, precision="int8")(images / "0.png").labels
        assert labels.shape == (64, 80)

    def test_the_report_says_it_all(self, bundle: Bundle, damaged: Callable[..., Path]) -> None:
        extended, report = quantize(bundle, images=damaged("1.png"), method="entropy", options=QuantizeOptions(seed=5))
        assert (report.method, report.seed, report.images, report.reused) == ("entropy", 5, 7, False)
        assert [Path(each.name).name for each in report.skipped] == ["1.png"]
        assert [(layer.name, layer.reason is None) for layer in report.layers] == [
            ("c0", False), ("c1", True), ("c2", True), ("c3", True), ("c4", False),
        ]  # fmt: skip
        assert all(layer.alone_drop is not None for layer in report.layers[1:4])
        assert [tensor.name for tensor in report.tensors] == ["r0", "r1", "r2"]
        for tensor in report.tensors:
            assert 0 < tensor.amax <= tensor.max_abs
            assert tensor.sqnr_db > 20
        assert report.tensors[1].counts.sum() == 7 * 8 * 16 * 20  # all pictures, padded to 64×80, at stride 4
        assert len(report.samples) == 3
        assert report.int8_bytes == extended.manifest.artifacts[1].bytes
        text = (extended.path / TEXT_FILE).read_text(encoding="utf-8")
        assert "1.png" in text
        assert "<html" in (extended.path / HTML_FILE).read_text(encoding="utf-8")

    def test_the_second_replaces_the_first(self, quantized: Bundle, images: Path) -> None:
        first = quantized
        again, report = quantize(first, images=images, method="minmax", keep=["c2"])
        assert [artifact.file for artifact in again.manifest.artifacts] == ["model.fp32.onnx", INT8_FILE]
        assert len(again.manifest.verification) == len(first.manifest.verification)
        assert again.manifest.artifacts[1].provenance["method"] == "minmax"
        assert again.manifest.artifacts[1].provenance["int8_layers"] == 2
        assert report.layers[2].reason == "requested by 'c2'"
        assert json.loads((again.path / CALIBRATION_FILE).read_text())["method"] == "minmax"
        assert contents(again.path).keys() == {"manifest.json", "model.fp32.onnx", *FILES}
        again.check()

    def test_pictures_may_be_arrays(self, bundle: Bundle, rng: np.random.Generator) -> None:
        extended, report = quantize(bundle, images=[rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)])
        assert report.images == 2
        extended.check()

    def test_a_fixed_size(self, tmp_path: Path, images: Path) -> None:
        fixed = make_bundle(tmp_path / "fixed.atrous", local_layers(5), fixed=(64, 80))
        extended, report = quantize(fixed, images=images, options=QuantizeOptions(max_images=3))
        assert {shape for check in extended.manifest.verification for shape in check.inputs} == {(1, 3, 64, 80)}
        assert (report.images, report.sensitivity_images) == (3, 3)

    def test_the_rest_is_fp16(self, tmp_path: Path, images: Path) -> None:
        size = DynamicSize((32, 32), (64, 80), (128, 128), multiple=8)
        bundle = export(TinyDeepLab().eval(), tmp_path / "exported.atrous", classes=list("abcde"), size=size)
        extended, report = quantize(bundle, images=images, options=QuantizeOptions(max_images=4))
        int8 = extended.manifest.artifacts[1]
        assert (report.rest, int8.provenance["rest"], int8.provenance["fp32_nodes"]) == ("fp16", "fp16", {})
        graph = onnx.load(extended.path / INT8_FILE).graph
        types = {tensor.data_type for tensor in graph.initializer}
        assert types <= {TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT64}
        ends = (graph.input[0], graph.output[0])
        assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
        for check in verify_bundle(extended, images=sorted(images.iterdir())).checks:
            assert check.passed, check

    def test_the_seed_chooses_the_pictures(self, bundle: Bundle, images: Path) -> None:
        chosen = [QuantizeOptions(max_images=3, seed=seed) for seed in (0, 1)]
        hashes = [quantize(bundle, images=images, options=options)[1].data_sha256 for options in chosen]
        assert hashes[0] != hashes[1]

    def test_numbers_of_numpy(self, bundle: Bundle, images: Path) -> None:
        drawn = [
            quantize(bundle, images=images, options=QuantizeOptions(max_images=kind(3), seed=kind(1)))[1].data_sha256
            for kind in (int, np.int64)
        ]
        assert drawn[0] == drawn[1]

    def test_progress_is_told(self, bundle: Bundle, images: Path) -> None:
        told: dict[str, list[int]] = {}
        totals = {}

        def progress(what: str, done: int, total: int) -> None:
            told.setdefault(what, []).append(done)
            totals[what] = total

        quantize(bundle, images=images, progress=progress)
        assert list(totals.values()) == [8, 8, 3, 8]
        assert all(done == list(range(1, totals[what] + 1)) for what, done in told.items())


class TestRangesAreReused:
    def test_for_the_same_model_pictures_and_method(
        self,
        quantized: Bundle,
        made: tuple[Bundle, QuantizationReport],
        images: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        before = (quantized.path / INT8_FILE).read_bytes()
        told = []
        with caplog.at_level(logging.INFO, logger="atrous.calibration"):
            again, report = quantize(quantized, images=images, progress=lambda what, *_: told.append(what))
        assert (made[1].reused, report.reused) == (False, True)
        assert "reusing the activation ranges of" in caplog.text
        assert "observing activations" not in told
        assert (again.path / INT8_FILE).read_bytes() == before
        assert [tensor.amax for tensor in report.tensors] == [tensor.amax for tensor in made[1].tensors]

    def test_with_other_layers_kept(self, bundle: Bundle, images: Path) -> None:
        first, _ = quantize(bundle, images=images, keep=["c1", "c3"])
        _, report = quantize(first, images=images)
        assert report.reused
        assert [layer.reason for layer in report.layers[1:4]] == [None] * 3

    @pytest.mark.parametrize("change", ["pictures", "method", "damage"])
    def test_but_not_otherwise(
        self, quantized: Bundle, images: Path, damaged: Callable[..., Path], change: str
    ) -> None:
        if change == "damage":
            (quantized.path / CALIBRATION_FILE).write_text("{")
        pictures = damaged("3.png") if change == "pictures" else images
        _, report = quantize(quantized, images=pictures, method="minmax" if change == "method" else DEFAULT_METHOD)
        assert not report.reused

    def test_from_a_file(
        self, bundle: Bundle, made: tuple[Bundle, QuantizationReport], images: Path, tmp_path: Path
    ) -> None:
        file = Path(shutil.copy(made[0].path / CALIBRATION_FILE, tmp_path / "ranges.json"))
        extended, report = quantize(bundle, images=images, options=QuantizeOptions(calibration=file))
        assert report.reused
        assert (extended.path / CALIBRATION_FILE).read_bytes() == file.read_bytes()
        assert report.accuracy.agreement == made[1].accuracy.agreement

    def test_a_file_of_another_model_is_refused(self, quantized: Bundle, images: Path, tmp_path: Path) -> None:
        other = make_bundle(tmp_path / "other.atrous", local_layers(4), fixed=(64, 80))
        with pytest.raises(CalibrationError, match="does not match this quantization: model_sha256"):
            quantize(other, images=images, options=QuantizeOptions(calibration=quantized.path / CALIBRATION_FILE))

    def test_a_file_of_other_pictures_is_refused(self, quantized: Bundle, images: Path) -> None:
        with pytest.raises(CalibrationError, match="does not match this quantization: data_sha256"):
            quantize(
                quantized,
                images=images,
                options=QuantizeOptions(max_images=4, calibration=quantized.path / CALIBRATION_FILE),
            )


class TestMasks:
    def test_mean_iou_is_that_of_an_evaluation(self, bundle: Bundle, images: Path, masks: Path) -> None:
        extended, report = quantize(bundle, images=images, masks=masks, options=QuantizeOptions(ignore=(9,)))
        pairs = pair_by_stem(sorted(images.iterdir()), masks)
        fp32, int8 = (
            evaluate(load(extended.path, backend="onnxruntime", precision=each), pairs, ignore=(9,)).scores.miou
            for each in ("fp32", "int8")
        )
        check = extended.manifest.verification[-1]
        assert check.miou_delta == pytest.approx(int8 - fp32, abs=1e-12)
        assert (report.accuracy.metric, report.accuracy.drop) == ("miou", pytest.approx(100 * (fp32 - int8)))


class TestBudget:
    def test_that_holds_at_once(self, bundle: Bundle, images: Path) -> None:
        _, report = quantize(bundle, images=images, max_drop=50)
        assert [step.returned for step in report.steps] == [()]

    def test_returns_the_most_sensitive_layers(
        self, bundle: Bundle, made: tuple[Bundle, QuantizationReport], images: Path
    ) -> None:
        _, free = made
        assert free.accuracy.drop > 0
        ranked = sorted(free.layers[1:4], key=lambda layer: -(layer.alone_drop or 0))
        extended, report = quantize(bundle, images=images, max_drop=free.accuracy.drop * 0.99)
        assert report.accuracy.drop <= free.accuracy.drop * 0.99
        returned = [layer.name for layer in report.layers if layer.reason and "budget" in layer.reason]
        assert set(returned) == {layer.name for layer in ranked[: len(returned)]} != set()
        assert report.steps[0].drop == free.accuracy.drop
        assert extended.manifest.verification[-1].argmax_agreement == report.accuracy.agreement
        assert report.layers[1].alone_drop is not None  # also of those returned


class _Interruption:
    """Ctrl-C when a step is done for the first time."""

    def __init__(self, step: int) -> None:
        self.remaining = step
        self.seen: set[str] = set()

    def __call__(self, what: str, *_: int) -> None:
        if what not in self.seen:
            self.seen.add(what)
            self.remaining -= 1
            if self.remaining == 0:
                raise KeyboardInterrupt


class TestNothingChanges:
    @pytest.fixture(autouse=True)
    def _the_bundle_stays_as_it_was(self, bundle: Bundle) -> Iterator[None]:
        before = contents(bundle.path)
        yield
        assert contents(bundle.path) == before
        assert [path.name for path in bundle.path.parent.iterdir()] == [bundle.path.name]

    @pytest.mark.parametrize("step", [1, 2, 3, 4])
    def test_on_ctrl_c(self, bundle: Bundle, images: Path, step: int) -> None:
        with pytest.raises(KeyboardInterrupt):
            quantize(bundle, images=images, progress=_Interruption(step))

    def test_on_a_full_disk(self, bundle: Bundle, images: Path) -> None:
        largest = max(len(data) for data in contents(bundle.path).values())
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 1000, hard))  # the report is larger
        try:
            with pytest.raises(BundleError, match=r"cannot write reports/int8\.html: .* The bundle is as it was"):
                quantize(bundle, images=images)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_on_a_budget_that_cannot_be_held(self, bundle: Bundle, images: Path) -> None:
        with pytest.raises(CalibrationError, match=r"Tried: all layers in INT8: .* points; without 'c\d': "):
            quantize(bundle, images=images, max_drop=0)

    def test_on_a_budget_that_is_none(self, bundle: Bundle, images: Path) -> None:
        with pytest.raises(CalibrationError, match="a finite number of points, 0 or more"):
            quantize(bundle, images=images, max_drop=-1)

    def test_on_an_empty_folder(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(CalibrationError, match="no images in"):
            quantize(bundle, images=tmp_path / "empty")

    def test_on_too_many_unreadable_pictures(self, bundle: Bundle, damaged: Callable[..., Path]) -> None:
        with pytest.raises(CalibrationError, match="of 8 images are unreadable; at most 1 may be skipped"):
            quantize(bundle, images=damaged("0.png", "1.png", "2.png"))

    def test_on_activations_that_are_all_zero(self, bundle: Bundle) -> None:
        with pytest.raises(CalibrationError, match=r"no layer can be quantized: .*its input was always 0"):
            quantize(bundle, images=[np.zeros((64, 64, 3), np.uint8)])

    def test_on_a_pattern_that_matches_nothing(self, bundle: Bundle, images: Path) -> None:
        with pytest.raises(CalibrationError, match=r"no layer matches 'head\*'; layer names are c1, c2, c3 …"):
            quantize(bundle, images=images, keep=["c2", "head*"])

    def test_on_keeping_everything(self, bundle: Bundle, images: Path) -> None:
        with pytest.raises(CalibrationError, match="no layer can be quantized"):
            quantize(bundle, images=images, keep=["c*"])

    def test_on_a_method_that_is_none(self, bundle: Bundle, images: Path) -> None:
        with pytest.raises(CalibrationError, match="unknown calibration method 'max'"):
            quantize(bundle, images=images, method="max")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda masks: (masks / "3.png").unlink(), "1 of 8 pictures have no mask"),
            (lambda masks: Image.new("L", (80, 61), 7).save(masks / "3.png"), "has ids 7; expected the classes 0 to 4"),
            (lambda masks: Image.new("L", (80, 60)).save(masks / "3.png"), "expected the same size"),
        ],
    )
    def test_on_masks_that_do_not_fit(
        self, bundle: Bundle, images: Path, masks: Path, change: Callable[[Path], Any], message: str
    ) -> None:
        change(masks)
        with pytest.raises(EvaluationError, match=message):
            quantize(bundle, images=images, masks=masks, options=QuantizeOptions(ignore=(9,)))

    def test_on_masks_that_are_all_void(self, bundle: Bundle, images: Path, masks: Path) -> None:
        with pytest.raises(CalibrationError, match="nothing in the masks is scored"):
            quantize(bundle, images=images, masks=masks, options=QuantizeOptions(ignore=range(10)))


def relabelled(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle, its only graph said to be something else."""
    (artifact,) = bundle.manifest.artifacts
    manifest = dataclasses.replace(bundle.manifest, artifacts=(dataclasses.replace(artifact, **changes),))
    with extend_bundle(bundle) as staged:
        staged.write_manifest(manifest)
    return Bundle.open(bundle.path)


class TestRefusals:
    def test_no_fp32_graph(self, bundle: Bundle, images: Path) -> None:
        with pytest.raises(EngineError, match="has no FP32 graph to quantize"):
            quantize(relabelled(bundle, precision="fp16"), images=images)

    def test_a_graph_that_is_quantized(self, quantized: Bundle, images: Path, tmp_path: Path) -> None:
        classes = [entry.name for entry in quantized.manifest.classes]
        size = DynamicSize((32, 32), (64, 96), (128, 128), multiple=8)
        packed = pack(quantized.path / INT8_FILE, tmp_path / "int8.atrous", classes=classes, size=size)
        assert [artifact.precision for artifact in packed.manifest.artifacts] == ["int8"]
        with pytest.raises(EngineError, match="has no FP32 graph"):
            quantize(packed, images=images)
        with pytest.raises(CalibrationError, match="the graph is already quantized"):
            quantize(relabelled(packed, precision="fp32"), images=images)

    def test_a_changed_file(self, bundle: Bundle, images: Path) -> None:
        graph = bundle.path / bundle.manifest.artifacts[0].file
        graph.write_bytes(graph.read_bytes()[:-1] + b"\xff")
        with pytest.raises(BundleError, match="SHA-256"):
            quantize(bundle, images=images)

    def test_activations_that_are_not_finite(self, tmp_path: Path, images: Path) -> None:
        layers = local_layers(5)
        layers[0] = Conv(layers[0].weight * np.float32(1e35), stride=2, relu=True)
        layers[1] = Conv(layers[1].weight, stride=2, relu=True)
        bundle = make_bundle(tmp_path / "loud.atrous", layers, fixed=(64, 80))
        inputs = dataclasses.replace(bundle.manifest.input, scale=1e4)
        with extend_bundle(bundle) as staged:
            staged.write_manifest(dataclasses.replace(bundle.manifest, input=inputs))
        with pytest.raises(CalibrationError, match=r"activation 'r0' is invalid on .*0\.png .*NaN or infinite"):
            quantize(Bundle.open(bundle.path), images=images)

    def test_labels_that_have_nothing_to_do_with_fp32(self, tmp_path: Path, rng: np.random.Generator) -> None:
        # One channel a thousand times as large as the others leaves those one code of INT8.
        layers = local_layers(5)
        loud = layers[0].weight.copy()
        loud[0] *= 3000
        quiet = layers[1].weight.copy()
        quiet[:, 0] = 0
        layers[:2] = [Conv(loud, stride=2, relu=True), Conv(quiet, stride=2, relu=True)]
        bundle = make_bundle(tmp_path / "uneven.atrous", layers, fixed=(64, 80))
        images = [rng.integers(0, 256, (64, 80, 3), np.uint8) for _ in range(2)]
        before = contents(bundle.path)
        with pytest.raises(CalibrationError, match=r"have the same label as in FP32; .* Most sensitive: c1, "):
            quantize(bundle, images=images, method="minmax")
        assert contents(bundle.path) == before


def test_a_graph_of_an_old_opset(tmp_path: Path, images: Path) -> None:
    """Refused before anything is observed, and in our own words."""
    graph = onnx.load(save_graph(tmp_path / "old.onnx", local_layers(5), size=(64, 80)))
    graph.opset_import[0].version, graph.ir_version = 11, 6
    onnx.save(graph, tmp_path / "old.onnx")
    bundle = atrous.pack(tmp_path / "old.onnx", tmp_path / "old.atrous", classes=list("abcde"))
    with pytest.raises(CalibrationError, match=r"has ONNX opset 11; .* needs 13 or newer\. Export the model again"):
        quantize(bundle, images=images, progress=lambda *_: pytest.fail("nothing is to be observed"))
