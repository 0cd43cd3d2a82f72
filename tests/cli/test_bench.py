from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Command
from reference_networks import settled
from safetensors.torch import save_file
from standins.fixtures import AddEngine

from atrous.bundle import Bundle

ARCH = "deeplabv3plus_efficientnet_lite0"
QUICK = ("--warmup", 1, "--repeats", 3)


def test_times_what_runs_here_with_and_without_crf(atrous: Command, tiny_bundle: Bundle) -> None:
    outcome = atrous("bench", tiny_bundle.path, *QUICK)
    assert outcome.code == 0, outcome.err
    for text in ("onnxruntime fp32 + CRF", "openvino fp32", "p99", "frames/s", "preprocess", "inference", "crf"):
        assert text in outcome.out
    assert "left out: PyTorch: a bundle has no PyTorch weights: pass --checkpoint FILE" in outcome.err


def test_json(atrous: Command, tiny_bundle: Bundle, photos: Path) -> None:
    outcome = atrous("bench", tiny_bundle.path, "--image", photos / "a.png", *QUICK, "--json", "--no-crf")
    assert (outcome.code, outcome.err) == (0, "")
    report = outcome.json()
    assert (report["size"], report["repeats"], report["bundle"]) == ([40, 50], 3, "tiny")
    assert {"system", "gpu", "packages"} == set(report["machine"])
    rows = {row["name"]: row for row in report["rows"]}
    assert {"onnxruntime", "openvino"} <= set(rows)
    assert rows["onnxruntime"]["ratio"] == 1
    for row in rows.values():
        total = row["end_to_end"]
        assert 0 < total["p50_ms"] <= total["p90_ms"] <= total["p99_ms"]
        assert set(row["stages"]) >= {"preprocess", "inference", "postprocess"}
        assert row["agreement"] > 0.99
        assert row["crf"] is False
    assert [each["name"] for each in report["left_out"]] == ["PyTorch"]


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_plot(atrous: Command, tiny_bundle: Bundle, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"bench{suffix}"
    assert atrous("bench", tiny_bundle.path, *QUICK, "--backend", "onnxruntime", "--plot", path).code == 0
    assert path.read_bytes().startswith(start)


@pytest.mark.slow
def test_pytorch_takes_part_where_its_weights_are_given(atrous: Command, tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "deeplab.safetensors", tmp_path / "street.atrous"
    weights = settled(ARCH, classes=3).state_dict()
    save_file(weights, checkpoint, metadata={"architecture": ARCH, "classes": "a, b, c"})
    assert atrous("export", checkpoint, out, "--size", "64x80").code == 0
    options = ("--checkpoint", checkpoint, "--backend", "onnxruntime", "--threads", 1, *QUICK)
    outcome = atrous("bench", out, *options, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = outcome.json()
    assert report["left_out"] == []
    version = torch.__version__.partition("+")[0]
    assert [row["name"] for row in report["rows"][2:4]] == [f"torch {version} eager"] * 2
    assert [row["crf"] for row in report["rows"]] == [False, True] * (len(report["rows"]) // 2)
    assert all(row["agreement"] > 0.999 for row in report["rows"] if row["precision"] == "fp32")
    save_file({name: -value for name, value in weights.items()}, checkpoint, metadata={"architecture": ARCH})
    other = atrous("bench", out, *options)
    assert other.code == 1
    assert "gives other labels than onnxruntime" in other.err
    assert "Nothing was timed. Is it the same model?" in other.err


@pytest.mark.usefixtures("stand_ins")
def test_what_does_not_run_here(atrous: Command, tiny_bundle: Bundle, add_engine: AddEngine) -> None:
    bundle = add_engine(tiny_bundle, compute_capability="1.0")
    outcome = atrous("bench", bundle.path, *QUICK, "--no-crf")
    assert outcome.code == 0
    assert "left out: tensorrt fp32" in outcome.err
    asked = atrous("bench", bundle.path, *QUICK, "--backend", "tensorrt")
    assert asked.code == 1
    assert asked.out == ""


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--plot", "x.pdf"), 2, ".png or .svg"),
        (("--plot", "absent/x.png"), 2, "no folder absent"),
        (("--backend", "tflite"), 1, "unknown backend 'tflite'; expected tensorrt"),
        (("--precision", "int8"), 1, "no artifact of those precisions"),
        (("--image", "absent.png"), 1, "absent.png"),
    ],
)
def test_wrong_options(atrous: Command, tiny_bundle: Bundle, options: tuple[str, ...], code: int, text: str) -> None:
    outcome = atrous("bench", tiny_bundle.path, *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert text in outcome.err
