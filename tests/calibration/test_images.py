from __future__ import annotations

import dataclasses
import logging
import weakref
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from atrous.calibration.images import CalibrationImages
from atrous.errors import CalibrationError, ShapeError
from atrous.exporter.verify import photo_inputs
from atrous.manifest import InputSpec, SizePolicy

INPUTS = InputSpec(size=SizePolicy(min=(16, 16), opt=(32, 32), max=(48, 64), multiple=8))


def make_pictures(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index:02}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (20 + index, 30, 3), np.uint8)).save(path)
    return paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures", 20)
    return tmp_path / "pictures"


def break_pictures(folder: Path, count: int) -> list[str]:
    """The first is empty, the others are cut off."""
    paths = sorted(folder.iterdir())[3 : 3 + count]
    for index, path in enumerate(paths):
        path.write_bytes(path.read_bytes()[: 200 * index])
    return [str(path) for path in paths]


def test_a_folder_in_the_order_of_its_names(folder: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    make_pictures(folder / "deeper", 1)
    pictures = CalibrationImages(folder, INPUTS)
    paths = sorted(folder.glob("*.png"))
    assert list(pictures.sources) == paths
    assert len(pictures) == 20
    found = list(pictures)
    assert [name for name, _ in found] == [str(path) for path in paths]
    for (_, batch), expected in zip(found, photo_inputs(paths, INPUTS), strict=True):
        np.testing.assert_array_equal(batch, expected)
    assert list(CalibrationImages(str(folder), INPUTS).sources) == paths


def test_pictures_of_any_size_and_kind(folder: Path, rng: np.random.Generator) -> None:
    small, large = (rng.integers(0, 256, (*size, 3), np.uint8) for size in ((5, 7), (200, 300)))
    pictures = CalibrationImages([folder / "00.png", small, Image.fromarray(large)], INPUTS)
    assert [(name, batch.shape) for name, batch in pictures] == [
        (str(folder / "00.png"), (1, 3, 24, 32)),
        ("image 2", (1, 3, 16, 16)),
        ("image 3", (1, 3, 48, 64)),
    ]


def test_a_choice_is_reproducible_and_in_order(folder: Path) -> None:
    chosen = CalibrationImages(folder, INPUTS, max_images=5).sources
    assert len(set(chosen)) == 5
    assert list(chosen) == sorted(chosen, key=str)
    assert CalibrationImages(folder, INPUTS, max_images=5).sources == chosen
    assert CalibrationImages(folder, INPUTS, max_images=5, seed=1).sources != chosen
    assert CalibrationImages(folder, INPUTS, max_images=20).sources == CalibrationImages(folder, INPUTS).sources


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_unreadable_pictures_are_named_and_skipped(
    folder: Path, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    broken = break_pictures(folder, count)
    pictures = CalibrationImages(folder, INPUTS)
    assert pictures.skipped == ()
    with caplog.at_level(logging.WARNING, logger="atrous"):
        found = [name for name, _ in pictures]
    assert [each.name for each in pictures.skipped] == broken
    assert pictures.skipped[0].reason == f"{broken[0]} is empty (0 bytes)"
    assert (
        found == [str(path) for path in pictures.readable] == [str(s) for s in pictures.sources if str(s) not in broken]
    )
    assert [record.getMessage() for record in caplog.records] == [
        f"skipped {each.name}: {each.reason}" for each in pictures.skipped
    ]
    caplog.clear()
    assert [name for name, _ in pictures] == found
    assert caplog.records == []


def test_too_many_unreadable_pictures(folder: Path) -> None:
    broken = break_pictures(folder, 3)
    with pytest.raises(CalibrationError, match="3 of 20 images are unreadable; at most 2 may be skipped: ") as caught:
        list(CalibrationImages(folder, INPUTS))
    assert all(name in str(caught.value) for name in broken)


def test_one_of_few_may_be_unreadable_but_not_the_only_one(folder: Path) -> None:
    (broken,) = break_pictures(folder, 1)
    assert len(list(CalibrationImages([broken, folder / "00.png"], INPUTS))) == 1
    with pytest.raises(CalibrationError, match="1 of 1 images are unreadable"):
        list(CalibrationImages([broken], INPUTS))
    assert len(list(CalibrationImages([folder / "gone.png", folder / "00.png"], INPUTS))) == 1


def test_an_array_of_another_type_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ShapeError, match="must be"):
        list(CalibrationImages([np.zeros((8, 8, 3), np.float32)], INPUTS))  # type: ignore[list-item]


def test_nothing_to_observe(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no images in"):
        CalibrationImages(tmp_path, INPUTS)
    with pytest.raises(CalibrationError, match="gone is not a folder"):
        CalibrationImages(tmp_path / "gone", INPUTS)
    with pytest.raises(CalibrationError, match="no calibration images given"):
        CalibrationImages([], INPUTS)
    with pytest.raises(CalibrationError, match="max_images must be 1 or more; got 0"):
        CalibrationImages([np.zeros((8, 8, 3), np.uint8)], INPUTS, max_images=0)


class TestDataHash:
    def test_is_of_contents_not_names(self, folder: Path, tmp_path: Path) -> None:
        first = CalibrationImages(folder, INPUTS).data_sha256
        assert len(first) == 64
        folder.rename(tmp_path / "moved")
        assert CalibrationImages(tmp_path / "moved", INPUTS).data_sha256 == first

    def test_changes_with_what_the_graph_sees(self, folder: Path) -> None:
        paths = sorted(folder.iterdir())
        hashes = {
            CalibrationImages(sources, inputs).data_sha256
            for sources, inputs in [
                (paths, INPUTS),
                (paths[::-1], INPUTS),
                (paths[:-1], INPUTS),
                (paths, dataclasses.replace(INPUTS, scale=1.0)),
            ]
        }
        paths[4].write_bytes(paths[5].read_bytes())
        hashes.add(CalibrationImages(paths, INPUTS).data_sha256)
        assert len(hashes) == 5

    def test_of_arrays(self) -> None:
        def digest(*shape: int) -> str:
            return CalibrationImages([np.zeros(shape, np.uint8)], INPUTS).data_sha256

        assert digest(20, 30, 3) == digest(20, 30, 3) != digest(30, 20, 3)

    def test_of_what_cannot_be_read(self, folder: Path) -> None:
        assert CalibrationImages([folder / "gone.png"], INPUTS).data_sha256


def test_one_picture_in_memory(folder: Path) -> None:
    made: list[weakref.ref[NDArray[np.float32]]] = []
    for _, batch in CalibrationImages(folder, INPUTS):
        assert sum(ref() is not None for ref in made) <= 1  # the last, until the loop moves on
        made.append(weakref.ref(batch))
    assert len(made) == 20
