"""bfloat16 of the CPU: verified, recorded for its kind, and taken only where it was asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from needs import BF16, OPENVINO
from PIL import Image
from tiny_graphs import color_layers, local_layers, make_bundle
from tuned_graphs import FILE, put_tuned

import atrous
from atrous.bundle import Bundle
from atrous.errors import EngineError, ExportError
from atrous.evidence import CpuKind
from atrous.exporter.bf16 import add_bf16
from atrous.exporter.verify import TOLERANCES, Tolerance
from atrous.exporter.verify.bundle import verify_bundle
from atrous.manifest import Manifest
from atrous.runtime.backends import BACKENDS, choose_artifact, open_backend, open_reference
from atrous.runtime.backends.cpu import bf16_evidence, bf16_objection, in_bf16, this_cpu
from atrous.runtime.backends.notices import warn_once

OPENVINO.load("openvino")
with_bf16 = BF16.unless(bf16_objection() is None)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "tiny.atrous", local_layers(4, dilation=2), fixed=(64, 64))


@with_bf16
def test_runs_in_bf16_where_asked(bundle: Bundle) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 64)).astype(np.float32)
    backend = open_backend(bundle, precision="bf16")
    assert (backend.name, backend.artifact.precision, backend.artifact.file) == ("openvino", "bf16", "model.fp32.onnx")
    exact, rounded = open_reference(bundle).infer(images), backend.infer(images)
    difference = np.abs(exact - rounded).max() / np.abs(exact).max()
    assert 1e-5 < difference < 0.05  # operands have 8 bits
    assert open_backend(bundle).artifact.precision == "fp32"


@with_bf16
def test_evidence_is_recorded_for_this_cpu_and_lets_fast_take_it(
    bundle: Bundle, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    warn_once.cache_clear()
    assert atrous.load(bundle, fast=True).backend.artifact.precision == "fp32"
    assert f"atrous add-bf16 {bundle.path}" in caplog.text
    pictures = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)]
    verified, check = add_bf16(bundle, images=pictures)
    assert check.cpu == this_cpu()
    assert check.passed
    assert check.argmax_agreement > 0.97
    assert bf16_evidence(verified, "openvino") == check
    assert Manifest.from_json(verified.manifest.to_json()) == verified.manifest
    again, _ = add_bf16(verified)
    assert len(again.manifest.verification) == len(verified.manifest.verification)
    assert atrous.load(verified, fast=True).backend.artifact.precision == "bf16"
    assert atrous.load(verified).backend.artifact.precision == "fp32"
    checked = {each.artifact: each.cpu for each in verify_bundle(verified).checks}
    assert checked["model.fp32.onnx in openvino (CPU), bf16"] == this_cpu()


@with_bf16
def test_masks_compare_the_mean_iou(tmp_path: Path, rng: np.random.Generator) -> None:
    bundle = make_bundle(tmp_path / "color.atrous", color_layers(8), fixed=(64, 64))
    segmenter = atrous.load(bundle, backend="onnxruntime")
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for index in range(3):
        tiles = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, (8, 8))] * 200  # one clear colour a cell
        picture = tiles.repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(picture).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(segmenter(picture).labels).save(tmp_path / "masks" / f"{index}.png")
    images = sorted((tmp_path / "images").iterdir())
    _, check = add_bf16(bundle, images=images, masks=tmp_path / "masks")
    assert check.miou_delta == 0
    assert len(check.inputs) == 3
    with pytest.raises(EngineError, match="masks belong to images"):
        add_bf16(bundle, masks=tmp_path / "masks")


@with_bf16
def test_labels_that_change_are_refused_and_nothing_is_recorded(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = Tolerance(max_relative=1e-6, min_agreement=1.0, max_miou_drop=0.0)
    monkeypatch.setattr("atrous.exporter.verify.bundle.TOLERANCES", {**TOLERANCES, "bf16": strict})
    before = bundle.manifest
    with pytest.raises(ExportError, match="does not compute what"):
        add_bf16(bundle)
    assert Bundle.open(bundle.path).manifest == before


@with_bf16
def test_evidence_of_another_cpu_counts_for_nothing(bundle: Bundle) -> None:
    verified, check = add_bf16(bundle)
    moved = dataclasses.replace(check, cpu=CpuKind("another", ("amx_bf16",)))
    others = tuple(each for each in verified.manifest.verification if each != check)
    elsewhere = Bundle(verified.path, dataclasses.replace(verified.manifest, verification=(*others, moved)))
    assert bf16_evidence(elsewhere, "openvino") is None
    assert atrous.load(elsewhere, fast=True).backend.artifact.precision == "fp32"


@with_bf16
def test_tuned_graphs_of_bf16_are_for_bf16(bundle: Bundle) -> None:
    tuned = put_tuned(bundle, "openvino", precision="bf16")
    assert open_backend(tuned, precision="bf16").artifact.file == FILE
    assert open_backend(tuned).artifact.file == "model.fp32.onnx"


def test_a_cpu_without_it_is_a_clear_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cpu", "openvino"):
        monkeypatch.setattr(f"atrous.runtime.backends.{module}.bf16_objection", lambda: "this CPU has no bfloat16: old")
    spec = dataclasses.replace(BACKENDS["openvino"], bf16_objection=lambda: "this CPU has no bfloat16: old")
    with pytest.raises(EngineError, match="in bf16: this CPU has no bfloat16: old"):
        choose_artifact(spec, bundle, "bf16")
    with pytest.raises(EngineError, match=r"model\.fp32\.onnx cannot run in bf16: this CPU has no bfloat16"):
        spec.open(bundle, in_bf16(bundle.manifest.artifacts[0]))


def test_the_objection_names_the_flags_and_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.runtime.backends.cpu.cpu_has_bf16", lambda: False)
    objection = bf16_objection()
    assert objection is not None
    assert "avx512_bf16 or amx_bf16" in objection
    assert this_cpu().name in objection


def test_other_backends_say_who_does_it(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="openvino computes FP32 graphs in bfloat16"):
        open_backend(bundle, backend="onnxruntime", precision="bf16")
    with pytest.raises(EngineError, match="fast chooses the precision"):
        open_backend(bundle, precision="fp32", fast=True)
    assert open_backend(bundle, backend="onnxruntime", fast=True).artifact.precision == "fp32"
