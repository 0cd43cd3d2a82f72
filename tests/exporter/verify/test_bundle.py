"""Every artifact against ONNX Runtime: what passes, what fails, and what is said of what cannot be run."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from PIL import Image
from standins.fixtures import AddEngine
from tiny_graphs import local_layers, save_graph

from atrous.bundle import Bundle, StagedBundle
from atrous.errors import BundleError, EvaluationError
from atrous.exporter.verify.bundle import verify_bundle
from atrous.manifest import EngineProfile
from atrous.runtime.backends import BACKENDS, backend_status, tensorrt


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the tiny bundle, to be changed."""
    return Bundle.open(shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous"))


class TestVerifyBundle:
    def test_every_backend_passes(self, tiny_bundle: Bundle) -> None:
        checks = verify_bundle(tiny_bundle).checks
        installed = [each.name for each in backend_status() if each.available and each.name != "tensorrt"]
        assert len(checks) == len(installed) >= 1
        for check, name in zip(checks, installed, strict=True):
            assert name in check.artifact
            assert check.passed, check

    def test_on_pictures(self, tiny_bundle: Bundle, tmp_path: Path, rng: np.random.Generator) -> None:
        photo = tmp_path / "photo.png"
        Image.fromarray(rng.integers(0, 256, (50, 200, 3), np.uint8)).save(photo)
        for check in verify_bundle(tiny_bundle, images=[photo]).checks:
            assert check.inputs == ((1, 3, 56, 128),)
            assert check.passed

    def test_a_changed_file_is_not_loaded(self, bundle: Bundle) -> None:
        graph = bundle.path / "model.fp32.onnx"
        data = bytearray(graph.read_bytes())
        data[len(data) // 2] ^= 1
        graph.write_bytes(data)
        with pytest.raises(BundleError, match="SHA-256"):
            verify_bundle(bundle)

    def test_another_network_fails(self, bundle: Bundle) -> None:
        # As an INT8 graph that lost its accuracy would: well-formed, hashed, and wrong.
        save_graph(bundle.path / "model.int8.onnx", local_layers(5, dilation=3))
        staged = StagedBundle(bundle.path)
        broken = staged.artifact("model.int8.onnx", kind="onnx", precision="int8", provenance={})
        manifest = dataclasses.replace(bundle.manifest, artifacts=(*bundle.manifest.artifacts, broken))
        checks = verify_bundle(staged.write_manifest(manifest)).checks
        assert {check.artifact.split()[0]: check.passed for check in checks} == {
            "model.fp32.onnx": True,
            "model.int8.onnx": False,
        }


@pytest.mark.usefixtures("stand_ins")
class TestEngines:
    @pytest.fixture(autouse=True)
    def _gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(BACKENDS, "tensorrt", tensorrt.make_spec(EmulatedDevice))

    def test_an_engine_passes(self, tiny_bundle: Bundle, add_engine: AddEngine, flavor: str) -> None:
        found = verify_bundle(add_engine(tiny_bundle, flavor=flavor))
        check = found.checks[-1]
        assert check.artifact == f"engines/fp32-{flavor}.plan in tensorrt (CPU emulator)"
        assert check.passed
        sizes = tiny_bundle.manifest.input.size
        assert {sizes.min, sizes.opt, sizes.max} <= {shape[2:] for shape in check.inputs}
        assert found.not_run == ()

    def test_pictures_are_fitted_to_its_profile(self, tiny_bundle: Bundle, add_engine: AddEngine) -> None:
        only = (1, 3, 64, 96)
        bundle = add_engine(tiny_bundle, profile=EngineProfile(only, only, only))
        photos = [np.zeros((size, size, 3), np.uint8) for size in (40, 120)]
        for images in (photos, ()):
            check = verify_bundle(bundle, images=images).checks[-1]
            assert check.passed
            assert set(check.inputs) == {only}

    def test_another_network_fails(self, tiny_bundle: Bundle, add_engine: AddEngine, tmp_path: Path) -> None:
        graph = save_graph(tmp_path / "other.onnx", local_layers(5, dilation=3)).read_bytes()
        bundle = add_engine(tiny_bundle, graph=graph)
        found = verify_bundle(bundle)
        assert not found.passed
        assert [check.passed for check in found.checks[-1:]] == [False]

    def test_engines_for_other_machines_are_not_run_and_the_others_are(
        self, tiny_bundle: Bundle, add_engine: AddEngine
    ) -> None:
        bundle = add_engine(tiny_bundle, compute_capability="8.9")
        bundle = add_engine(bundle, precision="fp16", dtype="float16")
        found = verify_bundle(bundle)
        assert found.passed
        (missing,) = found.not_run
        assert missing.artifact == "engines/fp32-tensorrt.plan in tensorrt"
        assert "was built for compute capability 8.9" in missing.reason
        assert "engines/fp16-tensorrt.plan in tensorrt" in found.checks[-1].artifact

    def test_too_little_memory_is_reported(
        self, tiny_bundle: Bundle, add_engine: AddEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small = tensorrt.make_spec(lambda: EmulatedDevice(total_bytes=2**12))
        monkeypatch.setitem(BACKENDS, "tensorrt", small)
        (missing,) = verify_bundle(add_engine(tiny_bundle)).not_run
        assert "not enough GPU memory" in missing.reason


class TestMasks:
    @pytest.fixture
    def data(self, tmp_path: Path, rng: np.random.Generator) -> tuple[list[Path], Path]:
        """Pictures of flat colours with the masks that belong to them."""
        masks = tmp_path / "masks"
        masks.mkdir()
        pictures = []
        for index in range(2):
            mask = np.kron(rng.integers(0, 3, (4, 4), np.uint8), np.ones((16, 16), np.uint8))
            pictures.append(tmp_path / f"{index}.png")
            Image.fromarray(np.eye(3, dtype=np.uint8)[mask] * 255).save(pictures[-1])
            Image.fromarray(mask).save(masks / f"{index}.png")
        return pictures, masks

    def test_the_same_labels_have_no_delta(self, color_bundle: Bundle, data: tuple[list[Path], Path]) -> None:
        pictures, masks = data
        for check in verify_bundle(color_bundle, images=pictures, masks=masks).checks:
            assert check.miou_delta == pytest.approx(0, abs=1e-9)
            assert check.passed

    def test_pictures_in_memory_have_no_masks(self, color_bundle: Bundle, data: tuple[list[Path], Path]) -> None:
        with pytest.raises(EvaluationError, match="pass the pictures as paths"):
            verify_bundle(color_bundle, images=[np.zeros((16, 16, 3), np.uint8)], masks=data[1])
