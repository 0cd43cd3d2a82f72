from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command
from PIL import Image

from atrous.bundle import Bundle
from atrous.runtime.evaluation import evaluate, pair_by_stem
from atrous.runtime.segmenter import load
from atrous.runtime.stabilization import Flicker


@pytest.fixture
def masks(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A mask for each photo, of classes 0 to 2, with a stripe of 9 for void."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for stem in "abc":
        mask = rng.integers(0, 3, (4, 5), np.uint8).repeat(10, 0).repeat(10, 1)
        mask[:, :5] = 9
        Image.fromarray(mask).save(folder / f"{stem}.png")
    return folder


@pytest.fixture
def arguments(tiny_bundle: Bundle, photos: Path, masks: Path) -> tuple[Any, ...]:
    return ("eval", tiny_bundle.path, "--images", photos, "--masks", masks, "--ignore", 9)


class TestOutputs:
    def test_tables(self, atrous: Command, arguments: tuple[Any, ...]) -> None:
        outcome = atrous(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert "over 3 pictures" in outcome.out
        assert all(f"class {index}" in outcome.out for index in range(5))
        assert "–" in outcome.out or "0.0000" in outcome.out  # classes that no mask has

    def test_json_is_what_python_gets(
        self, atrous: Command, arguments: tuple[Any, ...], tiny_bundle: Bundle, photos: Path, masks: Path
    ) -> None:
        report = atrous(*arguments, "--json").json()
        images = [photos / name for name in ("a.png", "b.jpg", "c.png")]
        scores = evaluate(load(tiny_bundle.path), pair_by_stem(images, masks), ignore=(9,)).scores
        assert report["confusion"] == scores.confusion.tolist()
        assert (report["miou"], report["pixel_accuracy"]) == (scores.miou, scores.pixel_accuracy)
        assert [entry["name"] for entry in report["classes"]] == [f"class {index}" for index in range(5)]
        assert [entry["iou"] for entry in report["classes"]] == [None if np.isnan(iou) else iou for iou in scores.iou]
        assert [entry["band_px"] for entry in report["trimap_miou"]] == list(range(1, 41))
        assert (report["pictures"], report["skipped"], report["precision"]) == (3, [], "fp32")

    def test_mirror_images_and_windows(self, atrous: Command, arguments: tuple[Any, ...]) -> None:
        plain = atrous(*arguments, "--json").json()
        augmented = atrous(*arguments, "--json", "--flip", "--window", "32x40", "--stride", "16x20").json()
        assert plain["confusion"] != augmented["confusion"]
        assert (plain["augmentation"], augmented["augmentation"]) == (
            None,
            {"flip": True, "window": [32, 40], "stride": [16, 20]},
        )
        wrong = atrous(*arguments, "--stride", "16x20")
        assert (wrong.code, "pass the window as well" in wrong.err) == (1, True)

    def test_csv(self, atrous: Command, arguments: tuple[Any, ...], tmp_path: Path) -> None:
        report = atrous(*arguments, "--json", "--csv", tmp_path / "scores.csv").json()
        with (tmp_path / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["metric"] for row in rows[:3]] == ["miou", "pixel_accuracy", "mean_boundary_f"]
        assert float(rows[0]["value"]) == pytest.approx(report["miou"], abs=5e-7)
        by_class = {row["class"]: row["value"] for row in rows if row["metric"] == "iou"}
        for entry in report["classes"]:
            text = by_class[entry["name"]]
            assert (float(text) if text else None) == pytest.approx(entry["iou"], abs=5e-7)
        assert [row["band_px"] for row in rows if row["metric"] == "trimap_miou"] == [str(px) for px in range(1, 41)]

    def test_nothing_to_score(self, atrous: Command, arguments: tuple[Any, ...]) -> None:
        report = atrous(*arguments, *(f"--ignore={index}" for index in range(3)), "--json").json()
        assert report["miou"] is None
        assert report["pixel_accuracy"] is None

    def test_options(self, atrous: Command, arguments: tuple[Any, ...]) -> None:
        options = ("--crf", "--threads", 1, "--workers", 3, "--backend", "onnxruntime", "--precision", "fp32")
        report = atrous(*arguments, *options, "--json").json()
        assert (report["crf"], report["backend"], report["device"]) == (True, "onnxruntime", "CPU")


class TestFlicker:
    def test_of_frames_in_order(self, atrous: Command, tiny_bundle: Bundle, photos: Path) -> None:
        with Image.open(photos / "a.png") as opened:
            first = np.asarray(opened)
        for name in ("b.jpg", "c.png"):
            (photos / name).unlink()
            Image.fromarray(np.minimum(first, 250) + np.uint8(len(name) - 3)).save(photos / f"{name[0]}.png")
        options = ("eval", tiny_bundle.path, "--images", photos, "--flicker")
        expected = Flicker()
        for result in load(tiny_bundle.path).stream(sorted(photos.glob("*.png")), stabilize=0.5):
            expected.add(result)
        report = atrous(*options, "--stabilize", 0.5, "--json").json()
        assert report == {
            "frames": 3,
            "still_px": expected.still_px,
            "changed_px": expected.changed_px,
            "flicker": expected.share,
            "stabilize": 0.5,
        }
        assert report["still_px"] > 0
        assert atrous(*options).out.startswith("flicker 0.")

    def test_scores_need_masks(self, atrous: Command, tiny_bundle: Bundle, photos: Path) -> None:
        outcome = atrous("eval", tiny_bundle.path, "--images", photos)
        assert outcome.code == 2
        assert "pass --masks FOLDER" in outcome.err

    def test_scores_are_of_single_pictures(self, atrous: Command, arguments: tuple[Any, ...]) -> None:
        outcome = atrous(*arguments, "--stabilize", 0.5)
        assert outcome.code == 2
        assert "--stabilize is about --flicker" in outcome.err

    def test_a_share_that_is_none(self, atrous: Command, tiny_bundle: Bundle, photos: Path) -> None:
        outcome = atrous("eval", tiny_bundle.path, "--images", photos, "--flicker", "--stabilize", 1)
        assert outcome.code == 1
        assert "at least 0, below 1" in outcome.err


class TestResume:
    def test_gives_the_same(self, atrous: Command, arguments: tuple[Any, ...], tmp_path: Path) -> None:
        first = atrous(*arguments, "--json", "--resume", tmp_path / "state.jsonl")
        assert len((tmp_path / "state.jsonl").read_text().splitlines()) == 4
        assert atrous(*arguments, "--json", "--resume", tmp_path / "state.jsonl").json() == first.json()

    def test_of_another_evaluation(self, atrous: Command, arguments: tuple[Any, ...], tmp_path: Path) -> None:
        atrous(*arguments, "--resume", tmp_path / "state.jsonl")
        outcome = atrous(*arguments, "--resume", tmp_path / "state.jsonl", "--ignore", "1")
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith("EvaluationError: ")
        assert "another evaluation: its ignored is [9, 255]" in outcome.err

    def test_after_ctrl_c(self, arguments: tuple[Any, ...], photos: Path, masks: Path, tmp_path: Path) -> None:
        for index in range(400):
            mask = np.zeros((40, 50), np.uint8)
            mask.flat[index] = 1  # content of its own: equal pairs are run once
            Image.fromarray(mask).save(masks / f"{index}.png")
            (photos / f"{index}.png").symlink_to(photos / "a.png")
        state = tmp_path / "state.jsonl"
        command = [sys.executable, "-m", "atrous", *map(str, arguments), "--resume", str(state), "--json"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            while not state.exists() or state.read_bytes().count(b"\n") < 5:
                assert process.poll() is None, "ended before it was interrupted"
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate()
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in error
        assert 5 <= len(state.read_bytes().splitlines()) < 400


class TestFailures:
    def test_unreadable_pairs_are_named_and_skipped(
        self, atrous: Command, arguments: tuple[Any, ...], photos: Path
    ) -> None:
        (photos / "b.jpg").write_bytes(b"")
        outcome = atrous(*arguments, "--json")
        assert outcome.code == 1
        assert f"skipped: {photos / 'b.jpg'} is empty" in outcome.err
        assert "1 of 3 pairs skipped" in outcome.err
        report = outcome.json()
        assert report["pictures"] == 2
        assert report["skipped"][0]["picture"] == str(photos / "b.jpg")

    def test_a_missing_mask(self, atrous: Command, arguments: tuple[Any, ...], masks: Path) -> None:
        (masks / "c.png").unlink()
        outcome = atrous(*arguments)
        assert (outcome.code, outcome.out) == (1, "")
        assert "1 of 3 pictures have no mask" in outcome.err

    def test_ids_that_are_not_ignored(self, atrous: Command, arguments: tuple[Any, ...]) -> None:
        outcome = atrous(*arguments[:-2])
        assert (outcome.code, outcome.out) == (1, "")
        assert "has ids 9; expected the classes 0 to 4" in outcome.err

    def test_an_empty_folder(self, atrous: Command, tiny_bundle: Bundle, masks: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        outcome = atrous("eval", tiny_bundle.path, "--images", tmp_path / "empty", "--masks", masks)
        assert outcome.code == 1
        assert "no pictures in the folder" in outcome.err

    @pytest.mark.parametrize("options", [("--ignore", "65536"), ("--ignore", "-1"), ("--workers", "0")])
    def test_wrong_usage(self, atrous: Command, arguments: tuple[Any, ...], options: tuple[str, ...]) -> None:
        assert atrous(*arguments, *options).code == 2

    def test_a_csv_that_cannot_be_written(self, atrous: Command, arguments: tuple[Any, ...], tmp_path: Path) -> None:
        outcome = atrous(*arguments, "--json", "--csv", tmp_path / "missing" / "scores.csv")
        assert outcome.code == 1
        assert "EvaluationError: cannot write " in outcome.err
        assert outcome.json()["pictures"] == 3
