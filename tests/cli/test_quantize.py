from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
from command_line import Command
from PIL import Image

from atrous.bundle import Bundle
from atrous.calibration.options import Method, QuantizeOptions
from atrous.calibration.quantize import quantize as quantize_bundle
from atrous.cli.evidence import failed_lines
from atrous.cli.quantize import quantize
from atrous.runtime.segmenter import load


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous"))


@pytest.fixture
def arguments(bundle: Bundle, photos: Path) -> tuple[Any, ...]:
    return ("quantize", bundle.path, "--images", photos)


@pytest.fixture
def masks(bundle: Bundle, photos: Path, tmp_path: Path) -> Path:
    """The FP32 labels, with a stripe of 9 for void."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for path in photos.glob("*.[pj]*g"):
        labels = load(bundle.path, backend="onnxruntime")(path).labels.copy()
        labels[:, :5] = 9
        Image.fromarray(labels).save(folder / f"{path.stem}.png")
    return folder


class TestOutputs:
    def test_text(self, atrous: Command, arguments: tuple[Any, ...], bundle: Bundle) -> None:
        outcome = atrous(*arguments, "--max-drop", 50)
        assert outcome.code == 0
        (check,) = [
            each for each in Bundle.open(bundle.path).manifest.verification if each.artifact == "model.int8.onnx"
        ]
        assert check.passed == (not check.failed)
        # Random weights in INT8 are near FP32 on the images of the ranges, not on every synthetic one.
        assert outcome.err.splitlines() == failed_lines(check)
        assert all("atrous verify will fail there" in line for line in failed_lines(check))
        assert "3 of 5 layers are INT8" in outcome.out
        assert "The budget of 50 points holds with all layers in INT8." in outcome.out
        assert f"report: {bundle.path / 'reports/int8.html'}" in outcome.out
        assert Bundle.open(bundle.path).find(kind="onnx", precision="int8")

    def test_json(self, atrous: Command, arguments: tuple[Any, ...], bundle: Bundle, masks: Path) -> None:
        report = atrous(*arguments, "--masks", masks, "--ignore", 9, "--keep", "c[12]", "--json").json()
        assert report["files"][0] == "model.int8.onnx"
        assert all((bundle.path / name).is_file() for name in report["files"])
        assert (report["metric"], report["images"], report["ranges_reused"]) == ("miou", 3, False)
        assert report["fp32_miou"] == 1
        assert report["drop"] == pytest.approx(100 * (1 - report["int8_miou"]))
        assert [layer["int8"] for layer in report["layers"]] == [False, False, False, True, False]
        assert [tensor["name"] for tensor in report["tensors"]] == ["r2"]
        assert atrous(*arguments, "--json").json()["ranges_reused"] is True

    def test_skipped_pictures_are_named(self, atrous: Command, arguments: tuple[Any, ...], photos: Path) -> None:
        (photos / "b.jpg").write_bytes(b"")
        outcome = atrous(*arguments, "--json")
        assert outcome.code == 0
        assert f"skipped: {photos / 'b.jpg'} is empty" in outcome.err
        assert outcome.json()["skipped"][0]["picture"] == str(photos / "b.jpg")

    def test_defaults_are_those_of_python(self) -> None:
        ours, theirs = (inspect.signature(each).parameters for each in (quantize, quantize_bundle))
        assert ours["method"].default == theirs["method"].default
        options = QuantizeOptions()
        assert (ours["max_images"].default, ours["seed"].default) == (options.max_images, options.seed)

    def test_help_lists_the_methods(self, atrous: Command) -> None:
        assert "|".join(get_args(Method)) in atrous("quantize", "--help").out


class TestRefusals:
    def test_a_budget_that_cannot_be_held(self, atrous: Command, arguments: tuple[Any, ...]) -> None:
        outcome = atrous(*arguments, "--max-drop", 0)
        assert (outcome.code, outcome.out) == (1, "")
        assert "CalibrationError: no INT8 graph holds the budget of 0 points. Tried: all layers in INT8" in outcome.err

    def test_an_empty_folder(self, atrous: Command, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        outcome = atrous("quantize", bundle.path, "--images", tmp_path / "empty")
        assert outcome.code == 1
        assert "no pictures in the folder" in outcome.err

    @pytest.mark.parametrize(
        "options", [("--method", "max"), ("--max-images", 0), ("--max-drop", -1), ("--ignore", 65536)]
    )
    def test_wrong_usage(self, atrous: Command, arguments: tuple[Any, ...], options: tuple[Any, ...]) -> None:
        assert atrous(*arguments, *options).code == 2

    def test_without_pictures(self, atrous: Command, bundle: Bundle) -> None:
        assert atrous("quantize", bundle.path).code == 2
