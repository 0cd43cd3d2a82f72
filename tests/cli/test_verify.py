from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import Command
from PIL import Image
from standins.fixtures import AddEngine
from tiny_graphs import local_layers, save_graph

from atrous.bundle import Bundle, StagedBundle


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the tiny bundle, to be changed."""
    return Bundle.open(shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous"))


@pytest.fixture
def broken(bundle: Bundle) -> Bundle:
    """A bundle with a second graph that answers infinities; hashed as it should be."""
    layers = local_layers(5)
    layers[-1] = dataclasses.replace(layers[-1], weight=np.full_like(layers[-1].weight, np.inf))
    save_graph(bundle.path / "model.fp16.onnx", layers)
    staged = StagedBundle(bundle.path)
    artifact = staged.artifact("model.fp16.onnx", kind="onnx", precision="fp16", provenance={})
    return staged.write_manifest(dataclasses.replace(bundle.manifest, artifacts=(*bundle.manifest.artifacts, artifact)))


def test_passes(atrous: Command, tiny_bundle: Bundle) -> None:
    outcome = atrous("verify", tiny_bundle.path)
    assert outcome.code == 0
    assert "passed" in outcome.out
    assert "failed" not in outcome.out


def test_on_pictures_as_json(atrous: Command, tiny_bundle: Bundle, photos: Path) -> None:
    outcome = atrous("verify", tiny_bundle.path, "--images", photos, "--images", photos / "a.png", "--json")
    assert outcome.code == 0
    for check in outcome.json()["checks"]:
        assert check["passed"]
        assert check["inputs"] == [[1, 3, 40, 56]] * 3


def test_a_changed_file_fails(atrous: Command, bundle: Bundle) -> None:
    graph = bundle.path / "model.fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    outcome = atrous("verify", bundle.path)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("BundleError: ")
    assert "SHA-256" in outcome.err


def test_a_graph_that_computes_something_else_fails(atrous: Command, broken: Bundle) -> None:
    outcome = atrous("verify", broken.path)
    assert outcome.code == 1
    assert "failed" in outcome.out


def test_json_has_no_infinity(atrous: Command, broken: Bundle) -> None:
    outcome = atrous("verify", broken.path, "--json")
    assert outcome.code == 1
    failed = [check for check in outcome.json()["checks"] if not check["passed"]]
    assert failed
    assert all(check["max_abs"] is None for check in failed)


@pytest.mark.parametrize("name", ["missing.png", "notes.txt"])
def test_a_picture_that_is_none(atrous: Command, tiny_bundle: Bundle, photos: Path, name: str) -> None:
    outcome = atrous("verify", tiny_bundle.path, "--images", photos / name)
    assert outcome.code == 1
    assert outcome.err.startswith("ImageError: ")
    assert name in outcome.err


@pytest.mark.usefixtures("stand_ins")
def test_an_engine_that_cannot_be_run_does_not_pass(
    atrous: Command, tiny_bundle: Bundle, add_engine: AddEngine
) -> None:
    bundle = add_engine(tiny_bundle, compute_capability="1.0")
    outcome = atrous("verify", bundle.path)
    assert outcome.code == 1
    assert "not run: engines/fp32-tensorrt.plan in tensorrt: " in outcome.err
    assert "not run" in outcome.out
    assert "failed" not in outcome.out
    allowed = atrous("verify", bundle.path, "--allow-not-run", "--json")
    assert allowed.code == 0
    (entry,) = allowed.json()["not_run"]
    assert entry["artifact"] == "engines/fp32-tensorrt.plan in tensorrt"


def test_mean_iou_where_there_are_masks(atrous: Command, tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in "abc":
        mask = np.random.default_rng(0).integers(0, 5, (40, 50), np.uint8)
        Image.fromarray(mask).save(masks / f"{name}.png")
    outcome = atrous("verify", tiny_bundle.path, "--images", photos, "--masks", masks)
    assert outcome.code == 0
    assert "Δ mIoU" in outcome.out
    assert "+0.0000" in outcome.out


def test_masks_without_pictures(atrous: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
    assert atrous("verify", tiny_bundle.path, "--masks", tmp_path).code == 2
