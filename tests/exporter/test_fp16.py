"""FP16 graphs: converted, verified, put into the bundle whole or not at all, and taken by TensorRT-RTX."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import needs
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from reference_networks import settled
from tiny_graphs import PLAIN, Conv, local_layers, make_bundle
from tiny_networks import TinyDeepLab
from torch import nn

import atrous
from atrous.bundle import Bundle, extend_bundle
from atrous.errors import BundleError, CalibrationError, EngineError, ExportError, ImageError
from atrous.exporter.export import export
from atrous.exporter.fp16 import FP16_FILE, add_fp16
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.models import ARCHITECTURES
from atrous.exporter.models.multiscale import MultiScale
from atrous.exporter.passes import ConvertToHalf, RoundToHalf, run_passes
from atrous.exporter.sizes import DynamicSize
from atrous.exporter.trained_model import load_trained
from atrous.exporter.verify import covering_probes
from atrous.exporter.verify.bundle import verify_bundle
from atrous.manifest import Artifact, Precision
from atrous.runtime.backends.onnxruntime import OnnxSession

CHECKPOINT = Path(__file__).parents[2] / "examples" / "train_camvid" / "deeplab.safetensors"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bundle(dynamic_bundle: Bundle, folder: Path) -> Bundle:
    """The tiny network, to be changed."""
    return Bundle.open(shutil.copytree(dynamic_bundle.path, folder / "street.atrous"))


@pytest.fixture
def images(rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    return [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(2)]


class TestBundle:
    def test_holds_both(self, bundle: Bundle, images: list[NDArray[np.uint8]]) -> None:
        extended, report = add_fp16(bundle, images=images)
        fp32, fp16 = extended.manifest.artifacts
        assert (fp16.kind, fp16.precision, fp16.file) == ("onnx", "fp16", FP16_FILE)
        nodes = {"fp16_nodes": len(report.halved), "fp32_nodes": {}}
        assert fp16.provenance == {"from": fp32.sha256, "images": 2, "overflow_margin": 8, **nodes}
        assert fp16.bytes < fp32.bytes
        assert (report.kept, report.images) == ((), 2)
        assert extended.manifest.verification == (*bundle.manifest.verification, *report.verification)
        assert [check.artifact for check in report.verification] == [
            FP16_FILE, f"{FP16_FILE} in openvino (CPU)", f"{FP16_FILE}, rounded to FP16 after every node",
        ]  # fmt: skip
        size = bundle.manifest.input.size
        claimed = {probe.shape(bundle.manifest.input) for probe in covering_probes(bundle.manifest.input, noise=False)}
        for check in report.verification:
            assert check.passed
            assert check.pictures[:2] == ("given", "given")
            assert set(check.inputs) | {each.input for each in check.skipped} >= claimed
            assert {(1, 3, *size.min), (1, 3, *size.opt), (1, 3, *size.max)} <= claimed

    def test_every_node_and_weight_is_fp16(self, bundle: Bundle) -> None:
        extended, report = add_fp16(bundle)
        graph = onnx.load(extended.path / FP16_FILE).graph
        assert [node.op_type for node in graph.node].count("Cast") == 2
        assert len(report.halved) == len(graph.node) - 2
        assert {tensor.data_type for tensor in graph.initializer} == {onnx.TensorProto.FLOAT16}

    def test_verifies_and_runs_in_every_backend(self, bundle: Bundle, images: list[NDArray[np.uint8]]) -> None:
        extended, _ = add_fp16(bundle)
        for check in verify_bundle(extended).checks:
            assert check.passed, check
        assert atrous.load(extended.path, precision="fp16")(images[0]).labels.shape == (40, 50)

    def test_again_replaces_it(self, bundle: Bundle) -> None:
        first, _ = add_fp16(bundle)
        again, report = add_fp16(first, keep=["node_Conv*"])
        assert {node.op for node in report.kept} == {"Conv"}
        assert [artifact.precision for artifact in again.manifest.artifacts] == ["fp32", "fp16"]
        assert len(again.manifest.verification) == len(first.manifest.verification)
        assert {node.reason for node in report.kept} == {"requested by 'node_Conv*'"}
        assert again.manifest.artifacts[1].provenance["fp32_nodes"] == {node.name: node.reason for node in report.kept}
        again.check()

    def test_through_a_link(self, bundle: Bundle) -> None:
        link = bundle.path.with_name("link.atrous")
        link.symlink_to(bundle.path)
        extended, _ = add_fp16(Bundle.open(link))
        assert link.is_symlink()
        assert extended.manifest == Bundle.open(bundle.path).manifest


class _Interrupted(Sequence[Any]):
    """Ctrl-C in the `pass_`-th pass over the pictures: 1 observes, 2 verifies."""

    def __init__(self, image: NDArray[np.uint8], pass_: int) -> None:
        self.image, self.remaining = image, pass_

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return self.image

    def __iter__(self) -> Iterator[Any]:
        yield self.image
        self.remaining -= 1
        if self.remaining == 0:
            raise KeyboardInterrupt
        yield self.image


def _reprecisioned(bundle: Bundle, precision: Precision) -> Bundle:
    """The bundle, its only graph said to be of another precision."""
    (artifact,) = bundle.manifest.artifacts
    other = Artifact(artifact.kind, precision, artifact.file, artifact.sha256, artifact.bytes)
    with extend_bundle(bundle) as staged:
        return staged.write_manifest(bundle.manifest.with_artifact(other))


class TestNothingChanges:
    @pytest.fixture(autouse=True)
    def _the_bundle_stays_as_it_was(self, bundle: Bundle) -> Iterator[None]:
        before = contents(bundle.path)
        yield
        assert contents(bundle.path) == before
        assert [path.name for path in bundle.path.parent.iterdir()] == [bundle.path.name]

    @pytest.mark.parametrize("pass_", [1, 2])
    def test_on_ctrl_c(self, bundle: Bundle, images: list[NDArray[np.uint8]], pass_: int) -> None:
        with pytest.raises(KeyboardInterrupt):
            add_fp16(bundle, images=_Interrupted(images[0], pass_))

    def test_on_a_picture_that_is_none(self, bundle: Bundle, images: list[NDArray[np.uint8]], tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"missing\.png"):
            add_fp16(bundle, images=[images[0], tmp_path / "missing.png"])

    def test_on_a_pattern_that_matches_nothing(self, bundle: Bundle) -> None:
        with pytest.raises(ExportError, match=r"no node matches 'head\.\*'; node names are stem\.0\.0 \(node_Conv_"):
            add_fp16(bundle, keep=["node_Conv*", "head.*"])


class TestRefusals:
    def test_no_fp32_graph(self, bundle: Bundle) -> None:
        _reprecisioned(bundle, "int8")
        with pytest.raises(EngineError, match="has no FP32 graph to convert"):
            add_fp16(Bundle.open(bundle.path))

    def test_a_changed_file(self, bundle: Bundle) -> None:
        graph = bundle.path / bundle.manifest.artifacts[0].file
        graph.write_bytes(graph.read_bytes()[:-1] + b"\xff")
        with pytest.raises(BundleError, match="SHA-256"):
            add_fp16(bundle)

    def test_activations_that_are_not_finite(self, folder: Path) -> None:
        # Finite on the grey levels that `pack` looked at: 255e36 is below 3.4e38.
        weight = np.full((3, 3, 1, 1), 1e36, np.float32) * np.eye(3, dtype=np.float32)[:, :, None, None]
        bundle = make_bundle(folder / "big.atrous", [Conv(weight)], sizes=DynamicSize((8, 8), (8, 8), (16, 16), 8))
        with pytest.raises(CalibrationError, match="'c0' is already NaN or infinite in FP32"):
            add_fp16(_with_input(bundle, scale=1e4))

    def test_a_network_that_fp16_cannot_follow(self, folder: Path) -> None:
        # 1/255 of a grey level beside 7000, whose neighbour in FP16 is 7004: nothing overflows, everything is lost.
        layers = [Conv(np.eye(3, dtype=np.float32)[:, :, None, None])]
        plain = make_bundle(folder / "fine.atrous", layers, fixed=(16, 16))
        bundle = _with_input(plain, mean=(-7000.0,) * 3, scale=1 / 255)
        before = contents(bundle.path)
        with pytest.raises(ExportError, match=r"rounded to FP16 after every node does not compute"):
            add_fp16(bundle)
        assert contents(bundle.path) == before


def _with_input(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle with another preprocessing than its network was packed with."""
    inputs = dataclasses.replace(bundle.manifest.input, **changes)
    manifest = dataclasses.replace(bundle.manifest, input=inputs)
    with extend_bundle(bundle) as staged:
        staged.write_manifest(manifest)
    return Bundle.open(bundle.path)


class TestOverflow:
    @pytest.fixture
    def loud(self, folder: Path) -> Bundle:
        """The second of five convolutions answers up to about 1e6; the third takes the factor back."""
        layers = local_layers(5)
        layers[1] = Conv(layers[1].weight * np.float32(1e4), stride=2, relu=True)
        layers[2] = Conv(layers[2].weight / np.float32(1e4), stride=2, relu=True)
        return make_bundle(folder / "loud.atrous", layers, fixed=(64, 96), normalization=PLAIN)

    def test_stays_fp32_and_right(self, loud: Bundle) -> None:
        extended, report = add_fp16(loud)
        assert [node.name for node in report.kept] == ["c1", "r1", "c2"]
        assert all("the FP16 maximum is 65504" in node.reason for node in report.kept)
        for check in (*report.verification, *verify_bundle(extended).checks):
            assert check.passed, check

    def test_would_be_wrong_in_fp16(self, loud: Bundle, rng: np.random.Generator) -> None:
        half = run_passes(loud.path / "model.fp32.onnx", [ConvertToHalf({"c2": "its weights are too small"})])
        rounded = run_passes(half, [RoundToHalf()])
        batch = rng.uniform(0, 255, (1, 3, 64, 96)).astype(np.float32)
        assert not np.isfinite(OnnxSession(rounded.SerializeToString(), name="rounded").run(batch)).all()


@dataclass(frozen=True)
class Case:
    """A network to take the whole way; the trained one is the demo's, the others have random weights."""

    name: str
    dynamic: bool

    def model(self) -> tuple[nn.Module, Preprocessing]:
        if self.name == "multiscale":
            return MultiScale(TinyDeepLab(5)).eval(), Preprocessing()
        if self.name == "trained":
            trained = load_trained(CHECKPOINT)
            return trained.model, Preprocessing(trained.architecture.normalization)
        return settled(self.name, classes=5), Preprocessing(ARCHITECTURES[self.name].normalization)

    def bundle(self, path: Path) -> Bundle:
        model, preprocessing = self.model()
        model.eval()
        size = DynamicSize((32, 32), (64, 48), (96, 96), multiple=16) if self.dynamic else (65, 49)
        if self.name == "trained" and self.dynamic:
            size = DynamicSize((64, 64), (368, 480), (1024, 1024), multiple=16)  # the demo's
        with torch.inference_mode():
            count = model(torch.zeros(1, 3, 65, 65)).shape[1]
        classes = [f"class {index}" for index in range(count)]
        return export(model, path, classes=classes, size=size, preprocessing=preprocessing)


CASES = [
    pytest.param(Case("multiscale", dynamic=True), marks=pytest.mark.slow),
    pytest.param(Case("trained", dynamic=False), marks=pytest.mark.slow),
    pytest.param(Case("trained", dynamic=True), marks=pytest.mark.slow),
    pytest.param(Case("deeplabv3_resnet50", dynamic=True), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_networks_verify_and_build_with_tensorrt_rtx(case: Case, tmp_path: Path) -> None:
    extended, report = add_fp16(case.bundle(tmp_path / "network.atrous"))
    assert report.kept == ()
    for check in verify_bundle(extended).checks:
        assert check.passed, check
    needs.TENSORRT_RTX.load("tensorrt_rtx")
    built, _ = atrous.build_engine(extended, sm=("89", "120"), batch=2 if case.dynamic else 1)
    assert [artifact.kind for artifact in built.manifest.artifacts] == ["onnx", "onnx", "engine", "engine"]
