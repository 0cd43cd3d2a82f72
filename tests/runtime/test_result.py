"""What a result shows and saves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from atrous.errors import ImageError
from atrous.manifest import ClassInfo
from atrous.runtime.result import Result, save_picture

CLASSES = (ClassInfo(0, "void", (0, 0, 0)), ClassInfo(1, "road", (128, 64, 128)), ClassInfo(2, "sky", (1, 255, 3)))


@pytest.fixture
def result(rng: np.random.Generator) -> Result:
    labels = rng.integers(0, 3, (13, 17), dtype=np.uint8)
    image = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    return Result(labels, image, CLASSES, {"inference": 1.0}, lambda: rng.random((3, 13, 17), np.float32))


def palette() -> NDArray[np.uint8]:
    return np.array([entry.color for entry in CLASSES], np.uint8)


def test_probabilities_are_computed_once(result: Result) -> None:
    assert result.probabilities is result.probabilities


def test_results_compare_by_identity(result: Result) -> None:
    assert len({result, dataclasses.replace(result)}) == 2


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.6, 1.0])
def test_overlay_blends_picture_and_colours(result: Result, alpha: float) -> None:
    expected = (1 - alpha) * result.image + alpha * palette()[result.labels]
    shown = np.asarray(result.overlay(alpha))
    assert shown.shape == (13, 17, 3)
    assert np.abs(shown - expected).max() <= 0.5 + 1e-4  # rounded to nearest, in float32


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_overlay_refuses_other_shares(result: Result, alpha: float) -> None:
    with pytest.raises(ImageError, match="between 0 and 1"):
        result.overlay(alpha)


def test_labels_survive_saving_with_their_colours(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "labels.PNG"
    result.save(path)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), result.labels)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), palette()[result.labels])
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.PNG"]


def test_256_classes_survive_saving(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    classes = [ClassInfo(index, str(index), (index, 255 - index, 7)) for index in range(256)]
    image = np.zeros((16, 16, 3), np.uint8)
    Result(labels, image, classes, {}, lambda: np.empty((256, 16, 16), np.float32)).save(tmp_path / "all.png")
    with Image.open(tmp_path / "all.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels)


@pytest.mark.parametrize("name", ["labels.jpg", "labels", "labels.png.gif"])
def test_labels_are_not_saved_in_other_formats(result: Result, tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"saved as \.png"):
        result.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["overlay.xyz", "overlay", "overlay.psd"])
def test_pictures_of_unknown_formats_are_refused(result: Result, tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"use \.png or \.jpg"):
        save_picture(result.overlay(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["missing/x.png", "file/x.png", "folder.png"])
def test_an_output_that_cannot_be_written_is_named(result: Result, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="cannot write") as caught:
        result.save(tmp_path / place)
    assert caught.value.path == tmp_path / place
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_failed_write_keeps_the_file_that_was_there(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "old.jpg"
    result.overlay().save(path)
    before = path.read_bytes()
    with pytest.raises(ImageError, match="cannot write"):
        save_picture(result.colored(), path)  # JPEG has no palettes
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.jpg"]
