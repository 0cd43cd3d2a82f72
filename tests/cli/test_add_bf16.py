from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command
from needs import BF16, OPENVINO
from PIL import Image
from tiny_graphs import color_layers, make_bundle

from atrous.bundle import Bundle
from atrous.runtime.backends.cpu import bf16_objection, this_cpu

pytestmark = [OPENVINO.importable("openvino"), BF16.unless(bf16_objection() is None)]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.atrous", color_layers(8), fixed=(64, 64)).path


def test_records_and_fast_takes_it(atrous: Command, bundle: Path, tmp_path: Path) -> None:
    outcome = atrous("add-bf16", bundle)
    assert outcome.code == 0, outcome.err
    assert "model.fp32.onnx in openvino (CPU), bf16: max |Δ|" in outcome.out
    assert f"recorded for {this_cpu()}" in outcome.out
    assert Bundle.open(bundle).manifest.verification[-1].cpu == this_cpu()
    image = tmp_path / "red.png"
    Image.new("RGB", (64, 64), (200, 0, 0)).save(image)
    fast = atrous("run", bundle, image, "--out", tmp_path / "out", "--fast", "--json")
    assert fast.code == 0, fast.err
    assert fast.json()["precision"] == "bf16"
    named = atrous("run", bundle, image, "--out", tmp_path / "out", "--precision", "bf16", "--json")
    assert named.json()["precision"] == "bf16"
    both = atrous("run", bundle, image, "--out", tmp_path / "out", "--precision", "bf16", "--fast")
    assert both.code == 1
    assert "fast chooses the precision" in both.err


def test_json(atrous: Command, bundle: Path) -> None:
    outcome = atrous("add-bf16", bundle, "--json")
    assert outcome.code == 0, outcome.err
    check = outcome.json()["verification"]
    assert check["passed"]
    assert check["cpu"]["name"] == this_cpu().name
