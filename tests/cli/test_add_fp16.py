from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import Command
from PIL import Image

from atrous.bundle import Bundle

FILE = "model.fp16.onnx"


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """To be changed."""
    return shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous")


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    return folder


def test_adds(atrous: Command, bundle: Path, photos: Path) -> None:
    outcome = atrous("add-fp16", bundle, "--images", photos, "--keep", "*")
    assert outcome.code == 0, outcome.err
    assert "stays FP32: requested by '*'" in outcome.out
    assert outcome.out.endswith(f"0 nodes in FP16, {outcome.out.count('stays FP32')} in FP32; wrote {bundle / FILE}\n")


def test_json(atrous: Command, bundle: Path, photos: Path) -> None:
    outcome = atrous("add-fp16", bundle, "--images", photos, "--json")
    assert outcome.code == 0, outcome.err
    answer = outcome.json()
    artifact = Bundle.open(bundle).find(kind="onnx", precision="fp16")
    assert artifact is not None
    assert (answer["file"], answer["images"], answer["kept"]) == (artifact.file, 2, [])
    assert len(answer["halved"]) == artifact.provenance["fp16_nodes"]
    assert all(check["passed"] for check in answer["verification"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--keep", "nothing"), "no node matches 'nothing'"),
        (("--images", "absent"), "absent"),
    ],
)
def test_refuses(atrous: Command, bundle: Path, options: tuple[str, str], said: str) -> None:
    outcome = atrous("add-fp16", bundle, *options)
    assert outcome.code == 1
    assert said in outcome.err
    assert [artifact.precision for artifact in Bundle.open(bundle).manifest.artifacts] == ["fp32"]
