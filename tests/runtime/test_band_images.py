"""Files and arrays of many bands, and what is refused of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from band_bundles import FLOATS, GREY16, RGBN, scene
from PIL import Image

from atrous.bands import Bands
from atrous.errors import ImageError, MissingDependencyError, ShapeError
from atrous.runtime.band_images import load_bands
from atrous.runtime.image import ImageFile

SIZE = (21, 34)


@pytest.fixture(params=[RGBN, GREY16, FLOATS], ids=str)
def bands(request) -> Bands:
    return request.param


class TestTiff:
    @pytest.mark.parametrize("big_endian", [False, True])
    @pytest.mark.parametrize("planes", [False, True], ids=["pixels", "planes"])
    @pytest.mark.parametrize("more", [{}, {"bigtiff": True}, {"tile": (16, 16)}, {"compression": "zlib"}], ids=str)
    def test_bands_as_they_were_written(self, tmp_path, bands, big_endian, planes, more) -> None:
        image = scene(bands, SIZE)
        stored = np.moveaxis(image, 2, 0) if planes else image
        config = {"planarconfig": "separate" if planes else "contig"} if image.shape[2] > 1 else {}
        byteorder = ">" if big_endian else "<"
        if image.shape[2] == 1:
            stored = image[..., 0]
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, stored, photometric="minisblack", byteorder=byteorder, **config, **more)
        read = load_bands(path, bands)
        assert read.dtype == bands.dtype
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, image)

    def test_a_page_for_each_band(self, tmp_path, bands) -> None:
        image = scene(bands, SIZE)
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            for index in range(image.shape[2]):
                file.write(image[..., index], photometric="minisblack")
        np.testing.assert_array_equal(load_bands(tmp_path / "x.tif", bands), image)

    def test_a_chosen_page(self, tmp_path) -> None:
        images = [scene(RGBN, SIZE, seed) for seed in range(2)]
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            for image in images:
                file.write(image, photometric="rgb", extrasamples=["unspecified"])
        for page, image in enumerate(images, 1):
            np.testing.assert_array_equal(load_bands(ImageFile(tmp_path / "x.tif", page=page), RGBN), image)
        np.testing.assert_array_equal(load_bands(tmp_path / "x.tif", RGBN), images[0])
        with pytest.raises(ImageError, match="no page 3; it has 2"):
            load_bands(ImageFile(tmp_path / "x.tif", page=3), RGBN)

    def test_overviews_are_no_pages(self, tmp_path) -> None:
        image = scene(GREY16, SIZE)[..., 0]
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            file.write(image)
            file.write(image[::2, ::2], subfiletype=1)
        np.testing.assert_array_equal(load_bands(tmp_path / "x.tif", GREY16)[..., 0], image)

    def test_bands_of_different_sizes(self, tmp_path) -> None:
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            for size in ((20, 30), (20, 30), (20, 30), (10, 15)):
                file.write(np.zeros(size, np.uint8))
        with pytest.raises(ImageError, match=r"bands of different sizes: 20×30, 10×15; expected one size\. Resample"):
            load_bands(tmp_path / "x.tif", RGBN)

    @pytest.mark.parametrize(
        ("image", "said"),
        [
            (np.zeros((5, 6, 3), np.uint8), r"\[5, 6, 3\] uint8; expected \[H, W, 4\] uint8"),
            (np.zeros((5, 6, 4), np.uint16), r"\[5, 6, 4\] uint16; expected \[H, W, 4\] uint8.*; convert its values"),
        ],
    )
    def test_other_bands(self, tmp_path, image, said) -> None:
        tifffile.imwrite(tmp_path / "x.tif", image, photometric="rgb")
        with pytest.raises(ImageError, match=said):
            load_bands(tmp_path / "x.tif", RGBN)

    def test_not_a_number(self, tmp_path) -> None:
        image = scene(FLOATS, SIZE)
        image[3, 4, 1] = np.nan
        tifffile.imwrite(tmp_path / "x.tif", image, photometric="minisblack", planarconfig="contig")
        with pytest.raises(ImageError, match=r"x\.tif has nan at row 3, column 4 of 'vh', and 1 values in all"):
            load_bands(tmp_path / "x.tif", FLOATS)

    def test_turned(self, tmp_path) -> None:
        extra = [(274, "H", 1, 6, True)]
        tifffile.imwrite(tmp_path / "x.tif", scene(RGBN, SIZE), photometric="rgb", extratags=extra)
        with pytest.raises(ImageError, match="orientation 6"):
            load_bands(tmp_path / "x.tif", RGBN)

    @pytest.mark.parametrize("keep", [0.5, 0.9])
    def test_truncated(self, tmp_path, keep) -> None:
        tifffile.imwrite(tmp_path / "x.tif", scene(RGBN, SIZE), photometric="rgb", compression="zlib")
        content = (tmp_path / "x.tif").read_bytes()
        (tmp_path / "x.tif").write_bytes(content[: int(keep * len(content))])
        with pytest.raises(ImageError, match=r"x\.tif"):
            load_bands(tmp_path / "x.tif", RGBN)

    def test_without_tifffile(self, tmp_path, monkeypatch) -> None:
        tifffile.imwrite(tmp_path / "x.tif", scene(GREY16, SIZE)[..., 0])
        monkeypatch.setitem(sys.modules, "tifffile", None)
        with pytest.raises(MissingDependencyError, match=r"atrous\[bands\]"):
            load_bands(tmp_path / "x.tif", GREY16)


class TestPillow:
    @pytest.mark.parametrize(("mode", "count"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
    def test_bytes_as_they_are_stored(self, tmp_path, rng, mode, count) -> None:
        image = rng.integers(0, 256, (*SIZE, count), np.uint8)
        Image.fromarray(image.squeeze()).save(tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as opened:
            assert opened.mode == mode
            for source in (tmp_path / "x.png", str(tmp_path / "x.png"), opened):
                np.testing.assert_array_equal(load_bands(source, Bands.of(count)), image)

    def test_16_bits_of_grey(self, tmp_path) -> None:
        image = scene(GREY16, SIZE)
        Image.fromarray(image[..., 0]).save(tmp_path / "x.png")
        np.testing.assert_array_equal(load_bands(tmp_path / "x.png", GREY16), image)

    def test_modes_that_are_no_bands(self, tmp_path) -> None:
        for mode in ("P", "1", "LA"):
            Image.new(mode, (4, 5)).save(tmp_path / "x.png")
            with pytest.raises(ImageError, match=f"mode {mode}, whose values are no bands"):
                load_bands(tmp_path / "x.png", Bands.of(1))

    def test_bits_are_not_for_bands(self, tmp_path) -> None:
        with pytest.raises(ImageError, match="bits=12 scales grey to 8 bits"):
            load_bands(ImageFile(tmp_path / "x.png", bits=12), GREY16)


class TestArrays:
    def test_a_copy(self, bands) -> None:
        image = scene(bands, SIZE)
        view = image[::-1, ::2]
        read = load_bands(view, bands)
        np.testing.assert_array_equal(read, view)
        assert read.flags.c_contiguous
        assert not np.shares_memory(read, image)

    def test_one_band_without_its_axis(self) -> None:
        image = scene(GREY16, SIZE)
        np.testing.assert_array_equal(load_bands(image[..., 0], GREY16), image)

    @pytest.mark.parametrize(
        ("image", "said"),
        [
            (np.zeros((5, 6, 3), np.uint8), r"expected \[H, W, 4\] uint8, .*4 bands uint8 \(red, green, blue, near"),
            (np.zeros((4, 5, 6), np.uint8), r"its bands come first: np\.moveaxis"),
            (np.zeros((5, 6, 4), np.float32), "convert its values"),
            (np.zeros((5, 6, 4), np.int64), "convert its values"),
            (np.zeros((0, 6, 4), np.uint8), "not empty"),
            (np.zeros((5, 6), np.uint8), r"\[5, 6, 1\]"),
        ],
    )
    def test_what_does_not_fit(self, image, said) -> None:
        with pytest.raises(ShapeError, match=said):
            load_bands(image, RGBN)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value) -> None:
        image = scene(FLOATS, SIZE)
        image[2, 5, 0] = value
        with pytest.raises(ShapeError, match=rf"has {value} at row 2, column 5 of 'vv'"):
            load_bands(image, FLOATS)


@pytest.mark.parametrize("name", ["missing.tif", "text.tif", "empty.tif"])
def test_unreadable(tmp_path: Path, name: str) -> None:
    if name != "missing.tif":
        (tmp_path / name).write_text("II*\0" if name == "text.tif" else "")
    with pytest.raises(ImageError, match=name):
        load_bands(tmp_path / name, RGBN)
