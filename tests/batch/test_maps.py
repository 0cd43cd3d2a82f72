from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from atrous.batch import LabelMaps, ProbabilityMaps
from atrous.errors import BatchError, ImageError

SIZE = (6, 8)


@pytest.fixture
def maps(rng: np.random.Generator) -> NDArray[np.float32]:
    """Probabilities [3, H, W]."""
    return rng.dirichlet(np.ones(3), size=SIZE).transpose(2, 0, 1).astype(np.float32)


def as_bytes(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(maps * 255).astype(np.uint8)


def save_class_files(folder: Path, maps: NDArray[Any], pattern: str = "{}.png") -> None:
    folder.mkdir(parents=True)
    for index, each in enumerate(maps):
        Image.fromarray(each).save(folder / pattern.format(index))


class TestProbabilities:
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("float32", 0), ("float64", 0)])
    def test_arrays(self, maps: NDArray[np.float32], tmp_path: Path, dtype: str, tolerance: float) -> None:
        (tmp_path / "day").mkdir()
        np.save(tmp_path / "day" / "a.npy", maps.astype(dtype))
        found = ProbabilityMaps(folder=tmp_path).read("day/a", SIZE)
        assert found.dtype == np.float32
        assert abs(found - maps).max() <= tolerance

    def test_archives(self, maps: NDArray[np.float32], tmp_path: Path) -> None:
        np.savez_compressed(tmp_path / "a.npz", maps)
        np.savez(tmp_path / "b.npz", probabilities=maps, labels=maps.argmax(0))
        for name in "ab":
            assert np.array_equal(ProbabilityMaps(folder=tmp_path).read(name, SIZE), maps)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_integers_are_divided_by_their_largest_and_sum_to_one(
        self, maps: NDArray[np.float32], tmp_path: Path, bits: int
    ) -> None:
        largest = 2**bits - 1
        np.save(tmp_path / "a.npy", np.round(maps * largest).astype(f"uint{bits}"))
        save_class_files(tmp_path / "b", np.round(maps * largest).astype(f"uint{bits}"), "class_{:02}.png")
        for name in "ab":
            found = ProbabilityMaps(folder=tmp_path).read(name, SIZE)
            assert abs(found - maps).max() < 2 / largest
            assert abs(found.sum(axis=0) - 1).max() < 1e-6

    @pytest.mark.parametrize("planar", ["contig", "separate"])
    def test_bands_of_a_tiff(self, maps: NDArray[np.float32], tmp_path: Path, planar: str) -> None:
        values = maps.transpose(1, 2, 0) if planar == "contig" else maps
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig=planar)
        assert np.array_equal(ProbabilityMaps(folder=tmp_path).read("a", SIZE), maps)

    def test_channels_last(self, maps: NDArray[np.float32], tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", maps.transpose(1, 2, 0))
        assert np.array_equal(ProbabilityMaps(folder=tmp_path, channels_last=True).read("a", SIZE), maps)
        with pytest.raises(ImageError, match=r"is \[6, 8, 3\]; expected \[classes, 6, 8\].*--channels-last"):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)

    def test_scores_are_normalized_when_asked(self, maps: NDArray[np.float32], tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", 7 * maps)
        with pytest.raises(ImageError, match=r"has values from .*--normalize"):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)
        found = ProbabilityMaps(folder=tmp_path, normalize=True).read("a", SIZE)
        assert abs(found - maps).max() < 1e-6


class TestBadProbabilities:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda maps: maps[:, :5], r"is \[3, 5, 8\]; expected \[classes, 6, 8\]"),
            (lambda maps: maps.transpose(0, 2, 1), "height and width are swapped"),
            (lambda maps: maps[None], "without the axis of batches"),
            (lambda maps: maps[0], r"is \[6, 8\]"),
            (lambda maps: maps[:0], r"is \[0, 6, 8\]"),
            (lambda maps: maps[:2], "sum to .*; expected 1. Is a class missing"),
            (lambda maps: 0.9 * maps, "sum to 0.9"),
            (lambda maps: np.log(maps), "has values from .* Apply softmax to logits"),
            (lambda maps: 9 * maps, "has values from"),
            (lambda maps: np.where(maps == maps.max(), np.nan, maps), "must be finite, got nan"),
            (lambda maps: np.where(maps == maps.max(), np.inf, maps), "must be finite, got inf"),
            (lambda maps: maps.astype(np.int64), "holds int64; expected floats"),
            (lambda maps: maps.astype(str), "holds <U"),
            (lambda maps: maps.astype(object), "cannot read .* as an array"),
        ],
    )
    def test_values(self, maps: NDArray[np.float32], tmp_path: Path, change: Any, said: str) -> None:
        np.save(tmp_path / "a.npy", change(maps), allow_pickle=True)
        with pytest.raises(ImageError, match=said):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)

    def test_a_pixel_without_a_class(self, maps: NDArray[np.float32], tmp_path: Path) -> None:
        maps[:, 2, 3] = 0
        np.save(tmp_path / "a.npy", maps)
        with pytest.raises(ImageError, match="has no class at row 2, column 3"):
            ProbabilityMaps(folder=tmp_path, normalize=True).read("a", SIZE)

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"there are no probabilities of this image: expected .*a \(\.npy"):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)

    def test_two(self, maps: NDArray[np.float32], tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", maps)
        np.savez(tmp_path / "a.npz", maps)
        with pytest.raises(ImageError, match=r"has probabilities twice: .*a.npy and .*a.npz"):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)

    def test_archives(self, maps: NDArray[np.float32], tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", first=maps, second=maps)
        with pytest.raises(ImageError, match="it holds first, second; expected one array"):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)
        (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
        (tmp_path / "c.npy").write_bytes(b"")
        for name in "bc":
            with pytest.raises(ImageError, match="cannot read"):
                ProbabilityMaps(folder=tmp_path).read(name, SIZE)

    def test_folders(self, maps: NDArray[np.float32], tmp_path: Path) -> None:
        save_class_files(tmp_path / "a", as_bytes(maps))
        (tmp_path / "a" / "1.png").unlink()
        with pytest.raises(ImageError, match="has PNGs of the classes 0, 2; expected"):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)
        Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "a" / "1.png")
        with pytest.raises(ImageError, match="differ in size or bits"):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "a" / "1.png")
        with pytest.raises(ImageError, match="has colours"):
            ProbabilityMaps(folder=tmp_path).read("a", SIZE)


class TestLabels:
    @pytest.fixture
    def labels(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        return rng.integers(0, 3, SIZE, np.uint8)

    @pytest.mark.parametrize("ending", [".png", ".npy", ".tif"])
    def test_are_right_with_a_probability(self, labels: NDArray[np.uint8], tmp_path: Path, ending: str) -> None:
        labels[0, 0] = 255
        if ending == ".npy":
            np.save(tmp_path / "a.npy", labels.astype(np.int64))
        else:
            Image.fromarray(labels).save(tmp_path / f"a{ending}")
        found = LabelMaps(folder=tmp_path, classes=3, confidence=0.8, void=(255,)).read("a", SIZE)
        expected = np.where(labels == np.arange(3)[:, None, None], 0.8, 0.1)
        expected[:, 0, 0] = 1 / 3
        assert abs(found - expected).max() < 1e-7

    def test_out_of_range(self, labels: NDArray[np.uint8], tmp_path: Path) -> None:
        labels[0, :3] = 7, 9, 255
        Image.fromarray(labels).save(tmp_path / "a.png")
        with pytest.raises(ImageError, match=r"has the ids 7, 9, 255, and there are 3 classes.*--ignore"):
            LabelMaps(folder=tmp_path, classes=3).read("a", SIZE)

    def test_bad_files(self, labels: NDArray[np.uint8], tmp_path: Path) -> None:
        maps = LabelMaps(folder=tmp_path, classes=3)
        with pytest.raises(ImageError, match="there are no labels of this image"):
            maps.read("a", SIZE)
        Image.fromarray(labels).save(tmp_path / "a.png")
        with pytest.raises(ImageError, match=r"is \[6, 8\]; expected \[8, 6\]"):
            maps.read("a", SIZE[::-1])
        np.save(tmp_path / "b.npy", labels.astype(float))
        with pytest.raises(ImageError, match="holds float64; expected class ids"):
            maps.read("b", SIZE)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "c.png")
        with pytest.raises(ImageError, match="has colours"):
            maps.read("c", SIZE)
        (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
        with pytest.raises(ImageError, match="cannot decode"):
            maps.read("d", SIZE)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"classes": 1}, "labels have 2 to"),
            ({"classes": 3, "void": (2**70,)}, "ids of labels are 0 to 65535"),
            ({"classes": 3, "void": (-1,)}, "got -1 as void"),
            ({"classes": 3, "confidence": 0.2}, "confidence is the probability"),
            ({"classes": 3, "confidence": 1.0}, "confidence is the probability"),
            ({"classes": 3, "confidence": float("nan")}, "confidence is the probability"),
        ],
    )
    def test_options(self, tmp_path: Path, values: dict[str, Any], said: str) -> None:
        with pytest.raises(BatchError, match=said):
            LabelMaps(folder=tmp_path, **values)
