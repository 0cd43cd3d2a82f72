"""Every picture that a user may have becomes [H, W, 3] uint8 RGB, or a clear error."""

from __future__ import annotations

import io
import random
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from tolerances import ICC_LEVELS, JPEG_LEVELS

from atrous.errors import ArgumentError, ImageError, ShapeError
from atrous.runtime.image import load_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def photo(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (24, 31, 3), dtype=np.uint8)


def saved(folder: Path, picture: Image.Image, name: str, **options: Any) -> Path:
    path = folder / name
    picture.save(path, **options)
    return path


def two_colors(mode: str) -> Image.Image:
    """2×1: red left, blue right, in another mode of Pillow."""
    picture = Image.new("RGB", (2, 1))
    picture.putpixel((0, 0), RED)
    picture.putpixel((1, 0), BLUE)
    return picture.convert(mode)


class TestModes:
    @pytest.mark.parametrize("source", [Path, str], ids=["path", "str"])
    def test_a_png_comes_back_exactly(
        self, photo: NDArray[np.uint8], tmp_path: Path, source: Callable[[Path], Any]
    ) -> None:
        path = saved(tmp_path, Image.fromarray(photo), "photo.png")
        image = load_image(source(path))
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, photo)

    @pytest.mark.parametrize(("mode", "name"), [("RGBA", "x.png"), ("P", "x.png"), ("P", "x.gif"), ("CMYK", "x.tif")])
    def test_colours_survive_other_modes(self, tmp_path: Path, mode: str, name: str) -> None:
        image = load_image(saved(tmp_path, two_colors(mode), name))
        np.testing.assert_array_equal(image, [[RED, BLUE]])

    def test_cmyk_jpeg(self, tmp_path: Path) -> None:
        green = Image.new("CMYK", (16, 16), (255, 0, 255, 0))
        image = load_image(saved(tmp_path, green, "x.jpg", quality=95))
        assert np.abs(image.astype(int) - GREEN).max() <= JPEG_LEVELS

    def test_alpha_is_dropped_not_blended(self, tmp_path: Path) -> None:
        clear = Image.new("RGBA", (3, 2), (*GREEN, 0))
        np.testing.assert_array_equal(load_image(saved(tmp_path, clear, "x.png")), np.tile(GREEN, (2, 3, 1)))

    @pytest.mark.parametrize("mode", ["L", "LA"])
    def test_grey_is_repeated(self, tmp_path: Path, mode: str) -> None:
        grey = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert(mode)
        image = load_image(saved(tmp_path, grey, "x.png"))
        np.testing.assert_array_equal(image, np.arange(12).reshape(3, 4, 1).repeat(3, axis=2))

    def test_grey_that_is_multiplied_by_its_alpha(self) -> None:
        grey, alpha = Image.new("L", (3, 2), 100), Image.new("L", (3, 2), 51)
        stored = Image.merge("LA", (grey, alpha)).convert("La")
        assert stored.getpixel((0, 0)) == (20, 51)
        np.testing.assert_array_equal(load_image(stored), np.full((2, 3, 3), 100))

    def test_one_bit(self, tmp_path: Path) -> None:
        bits = Image.new("1", (2, 1))
        bits.putpixel((1, 0), 1)
        np.testing.assert_array_equal(load_image(saved(tmp_path, bits, "x.png")), [[[0] * 3, [255] * 3]])

    @pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
    def test_16_bit_grey_is_scaled_not_clipped(self, tmp_path: Path, name: str) -> None:
        values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
        image = load_image(saved(tmp_path, Image.fromarray(values), name))
        np.testing.assert_array_equal(image[0, :, 0], [0, 0, 1, 128, 255])

    def test_16_bit_rgb_keeps_the_high_bytes(self, tmp_path: Path) -> None:
        """Pillow cannot write such a PNG, so it is put together here: one row of two pixels."""
        row = np.array([[65535, 32768, 255], [0, 256, 4660]], ">u2")
        chunks = (
            (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(b"\0" + row.tobytes())),
            (b"IEND", b""),
        )
        path = tmp_path / "x.png"
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                for kind, data in chunks
            )
        )
        np.testing.assert_array_equal(load_image(path), [row >> 8])

    def test_32_bit_grey_beyond_16_bits_is_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path, Image.fromarray(np.array([[70000]], np.int32)), "x.tif")
        with pytest.raises(ImageError, match=r"x\.tif is grey with values from 70000 to 70000; expected") as caught:
            load_image(path)
        assert caught.value.path == path

    def test_floats_are_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path, Image.fromarray(np.array([[0.5]], np.float32)), "x.tif")
        with pytest.raises(ImageError, match=r"x\.tif holds floats.*convert it to 8 bits"):
            load_image(path)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied(self, tmp_path: Path, orientation: int) -> None:
        """Stored so that every orientation shows the same: red at the top left, green at the top right, blue below."""
        upright = np.array([[RED, GREEN, GREEN], [BLUE, BLUE, BLUE]], np.uint8)
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.transpose(1, 0, 2),
            6: np.rot90(upright, 1),
            7: upright[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(upright, -1),
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), "x.png", exif=exif)
        np.testing.assert_array_equal(load_image(path), upright)

    def test_one_pixel(self, tmp_path: Path) -> None:
        np.testing.assert_array_equal(load_image(saved(tmp_path, Image.new("RGB", (1, 1), BLUE), "x.png")), [[BLUE]])

    def test_the_first_frame_of_an_animation(self, tmp_path: Path) -> None:
        frames = [Image.new("P", (2, 2), index) for index in range(3)]
        for frame in frames:
            frame.putpalette([*RED, *GREEN, *BLUE])
        path = saved(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(load_image(path), np.tile(RED, (2, 2, 1)))


class TestArrays:
    @pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
    def test_grey(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        grey = rng.integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_array_equal(load_image(grey), grey.reshape(4, 5, 1).repeat(3, axis=2))

    def test_rgba(self, rng: np.random.Generator) -> None:
        array = rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)
        np.testing.assert_array_equal(load_image(array), array[:, :, :3])

    @pytest.mark.parametrize(
        "view",
        [
            lambda array: array[::2, ::-1],
            lambda array: array.transpose(1, 0, 2),
            lambda array: array[:, :, ::-1],
            lambda array: array[:1, :2][:, ::2],  # one pixel, with strides that contiguity does not look at
        ],
    )
    def test_any_view_becomes_packed(
        self, photo: NDArray[np.uint8], view: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    ) -> None:
        image = load_image(view(photo))
        np.testing.assert_array_equal(image, view(photo))
        assert image.strides == (image.shape[1] * 3, 3, 1)

    def test_a_caller_may_reuse_the_array(self, photo: NDArray[np.uint8]) -> None:
        image, before = load_image(photo), photo.copy()
        photo[:] = 0
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((4, 5, 3), np.float32),
            np.zeros((4, 5, 3), np.uint16),
            np.zeros((4, 5, 2), np.uint8),
            np.zeros((3, 40, 50), np.uint8),
            np.zeros((1, 4, 5, 3), np.uint8),
            np.zeros((5,), np.uint8),
            np.zeros((0, 5, 3), np.uint8),
        ],
        ids=lambda array: f"{array.shape} {array.dtype}",
    )
    def test_other_arrays_are_refused_with_what_they_are(self, array: NDArray[Any]) -> None:
        with pytest.raises(ShapeError, match=r"\[H, W, 3\]") as caught:
            load_image(array)
        assert caught.value.actual == f"{list(array.shape)} {array.dtype}"

    def test_a_pil_image_is_not_changed(self) -> None:
        picture = two_colors("RGBA")
        np.testing.assert_array_equal(load_image(picture), [[RED, BLUE]])
        assert picture.mode == "RGBA"

    def test_a_pil_image_without_pixels(self) -> None:
        with pytest.raises(ImageError, match="has no pixels: it is 0×5"):
            load_image(Image.new("RGB", (0, 5)))

    def test_a_truncated_pil_image(self, photo: NDArray[np.uint8], tmp_path: Path) -> None:
        path = saved(tmp_path, Image.fromarray(photo), "x.png")
        path.write_bytes(path.read_bytes()[:500])
        with Image.open(path) as lazy, pytest.raises(ImageError, match=r"cannot decode the image.*truncated"):
            load_image(lazy)


class TestBadFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"bad\.png is empty \(0 bytes\)"),
            (b"this is text\n", r"bad\.png is not a picture in a format that Pillow reads"),
            (b"\x89PNG\r\n\x1a\n", r"bad\.png"),
        ],
    )
    def test_what_is_no_picture(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "bad.png"
        path.write_bytes(content)
        with pytest.raises(ImageError, match=message) as caught:
            load_image(path)
        assert caught.value.path == path

    def test_missing_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="no such image"):
            load_image(tmp_path / "missing.png")
        with pytest.raises(ImageError, match=r"Is a directory$"):
            load_image(tmp_path)
        (tmp_path / "file").write_text("x")
        with pytest.raises(ImageError, match=r"Not a directory$"):
            load_image(tmp_path / "file" / "x.png")

    @pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tif"])
    @pytest.mark.parametrize("share", [0.5, 0.95])
    def test_truncated_files(self, photo: NDArray[np.uint8], tmp_path: Path, name: str, share: float) -> None:
        path = saved(tmp_path, Image.fromarray(photo), name)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TIFF says "Truncated File Read" as well
            with pytest.raises(ImageError, match=path.name):
                load_image(path)

    @pytest.mark.parametrize("limit", ["as Pillow has it", "lowered"])
    def test_a_bomb_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
        size = (60_000, 4_000)
        if limit == "lowered":
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
            size = (50, 50)
        path = saved(tmp_path, Image.new("1", size), "bomb.png")
        with pytest.raises(ImageError, match=r"too large.*MAX_IMAGE_PIXELS"):
            load_image(path)

    def test_a_large_picture_below_the_limit_gives_no_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here, and raises from twice as many
        path = saved(tmp_path, Image.new("1", (40, 40)), "large.png")
        with pytest.warns(Image.DecompressionBombWarning), Image.open(path):
            pass
        assert load_image(path).shape == (40, 40, 3)

    def test_threads_leave_the_warning_filters_alone(self, photo: NDArray[np.uint8], tmp_path: Path) -> None:
        path = saved(tmp_path, Image.fromarray(photo), "x.png")
        before = list(warnings.filters)
        threads = [threading.Thread(target=lambda: [load_image(path) for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == before

    @pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
    def test_random_damage_gives_a_picture_or_an_image_error(
        self, photo: NDArray[np.uint8], tmp_path: Path, name: str
    ) -> None:
        random_bytes = random.Random(0)
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(photo).save(buffer, name, **({} if name in ("GIF", "BMP") else {"exif": exif}))
        path = tmp_path / "damaged"
        for _ in range(60):
            data = bytearray(buffer.getvalue())
            for _ in range(random_bytes.choice((1, 4, 16))):
                data[random_bytes.randrange(min(len(data), 400))] = random_bytes.randrange(256)
            path.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about metadata
                try:
                    image = load_image(path)
                except ImageError:
                    continue
            assert image.dtype == np.uint8
            assert image.shape[2] == 3


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, as if nothing had been said before."""
    monkeypatch.setattr("atrous.runtime.image._said", set())
    return caplog


def colors_in(folder: Path, name: str, **options: Any) -> Path:
    """Red, green and blue as three pages."""
    pages = [Image.new("RGB", (3, 2), color) for color in (RED, GREEN, BLUE)]
    return saved(folder, pages[0], name, save_all=True, append_images=pages[1:], **options)


class TestPages:
    @pytest.mark.parametrize("name", ["x.tif", "x.png", "x.gif", "x.webp"])
    def test_each_can_be_chosen(self, tmp_path: Path, name: str, said: pytest.LogCaptureFixture) -> None:
        path = colors_in(tmp_path, name, **({"lossless": True} if name == "x.webp" else {}))
        for page, color in enumerate((RED, GREEN, BLUE), start=1):
            np.testing.assert_array_equal(load_image(path, page=np.int64(page)), np.tile(color, (2, 3, 1)))
        assert said.text == ""

    @pytest.mark.parametrize("name", ["x.tif", "x.png", "x.gif", "x.webp"])
    def test_the_first_is_taken_and_that_is_said_once(
        self, tmp_path: Path, name: str, said: pytest.LogCaptureFixture
    ) -> None:
        path = colors_in(tmp_path, name, **({"lossless": True} if name == "x.webp" else {}))
        for _ in range(3):
            np.testing.assert_array_equal(load_image(path), np.tile(RED, (2, 3, 1)))
        (message,) = said.messages
        assert message.startswith(f"{path} has 3 pages, of which page 1 is used")

    def test_one_page_says_nothing(self, tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
        path = saved(tmp_path, two_colors("RGB"), "x.tif")
        np.testing.assert_array_equal(load_image(path, page=1), load_image(path))
        assert said.text == ""

    @pytest.mark.parametrize("page", [0, -1, 4])
    def test_others_are_refused(self, tmp_path: Path, page: int) -> None:
        path = colors_in(tmp_path, "x.tif")
        with pytest.raises(ImageError, match=rf"has no page {page}; it has 3, from 1"):
            load_image(path, page=page)


def png_of_16_bits(path: Path, row: NDArray[np.uint16]) -> Path:
    """One row [W, 3] of 16-bit RGB, which Pillow cannot write."""
    header = struct.pack(">IIBBBBB", len(row), 1, 16, 2, 0, 0, 0)
    data = b"\0" + row.astype(">u2").tobytes()
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    return path


class TestDepth:
    @pytest.mark.parametrize("bits", [10, 12, 14])
    @pytest.mark.parametrize("name", ["x.png", "x.tif"])
    def test_fewer_bits_are_asked_for(self, tmp_path: Path, name: str, bits: int) -> None:
        top = (1 << bits) - 1
        path = saved(tmp_path, Image.fromarray(np.array([[0, top // 2, top]], np.uint16)), name)
        with pytest.raises(
            ImageError, match=rf"16-bit grey with values up to {top} only.*--bits {max(bits, 12)}"
        ) as caught:
            load_image(path)
        assert caught.value.path == path
        np.testing.assert_array_equal(load_image(path, bits=np.int64(bits))[0, :, 0], [0, 127, 255])
        assert load_image(path, bits=16).max() == top >> 8

    @pytest.mark.parametrize("bits", [10, 12, 14])
    def test_a_tiff_that_says_it(self, tmp_path: Path, bits: int) -> None:
        top = (1 << bits) - 1
        picture = Image.fromarray(np.array([[0, top // 2, top]], np.uint16))
        path = saved(tmp_path, picture, "x.tif", tiffinfo={281: top})  # MaxSampleValue
        np.testing.assert_array_equal(load_image(path)[0, :, 0], [0, 127, 255])

    def test_a_tiff_of_12_packed_bits(self, tmp_path: Path) -> None:
        """Two pixels in three bytes, which Pillow reads and does not write."""
        tags = ((256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3))
        entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
        path = tmp_path / "x.tif"
        header = b"II*\0" + struct.pack("<I", 12)
        path.write_bytes(header + bytes([0x7F, 0xFF, 0xFF, 0]) + struct.pack("<H", len(tags)) + entries + bytes(4))
        np.testing.assert_array_equal(load_image(path)[0, :, 0], [127, 255])

    def test_a_pgm_says_it(self, tmp_path: Path) -> None:
        path = tmp_path / "x.pgm"
        path.write_bytes(b"P5 3 1 4095\n" + np.array([0, 800, 900], ">u2").tobytes())
        np.testing.assert_array_equal(
            load_image(path)[0, :, 0], [0, 800 * 65535 // 4095 >> 8, 900 * 65535 // 4095 >> 8]
        )

    def test_black_is_black(self, tmp_path: Path) -> None:
        path = saved(tmp_path, Image.fromarray(np.zeros((2, 2), np.uint16)), "x.png")
        assert load_image(path).max() == 0

    def test_values_beyond_the_bits(self, tmp_path: Path) -> None:
        path = saved(tmp_path, Image.fromarray(np.array([[5000]], np.uint16)), "x.png")
        with pytest.raises(ImageError, match="values up to 5000, which are not of 12 bits"):
            load_image(path, bits=12)

    @pytest.mark.parametrize("bits", [0, 8, 17])
    def test_bits_out_of_range(self, tmp_path: Path, bits: int) -> None:
        path = saved(tmp_path, Image.fromarray(np.array([[0]], np.uint16)), "x.png")
        with pytest.raises(ImageError, match="9 to 16"):
            load_image(path, bits=bits)

    @pytest.mark.parametrize("top", [255, 4095, 16383])
    def test_colours_of_fewer_bits_are_refused(self, tmp_path: Path, top: int) -> None:
        path = png_of_16_bits(tmp_path / "x.png", np.array([[top, 0, 0], [0, top, 7]], np.uint16))
        for bits in (None, 12):
            with pytest.raises(ImageError, match="Pillow reads the high bytes alone"):
                load_image(path, bits=bits)
        assert load_image(path, bits=16).max() == top >> 8

    def test_8_bits_need_no_word(self, tmp_path: Path) -> None:
        path = saved(tmp_path, Image.new("RGB", (160, 16), (3, 3, 3)), "x.tif")
        np.testing.assert_array_equal(load_image(path), np.full((16, 160, 3), 3))


#: Colorants of Display P3 for D50, as its profile has them: columns X, Y, Z of red, green, blue.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile_with(colorants: tuple[tuple[float, float, float], ...]) -> bytes:
    """Profile with the transfer curve of sRGB and other colorants."""
    data = bytearray(srgb_profile())
    for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True):
        (start,) = struct.unpack(">I", data[data.index(name) + 4 :][:4])
        data[start + 8 : start + 20] = struct.pack(">3i", *(round(value * 65536) for value in values))
    return bytes(data)


def converted(pixels: NDArray[np.uint8], colorants: tuple[tuple[float, float, float], ...]) -> NDArray[np.float64]:
    """Conversion to sRGB by the formula: curve, matrices, clipping, curve."""
    values = pixels / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = linear @ np.array(colorants) @ np.linalg.inv(np.array(SRGB))
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


class TestProfiles:
    @pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
    def test_wide_gamuts_become_srgb(self, photo: NDArray[np.uint8], tmp_path: Path, name: str) -> None:
        options = {"lossless": True} if name == "x.webp" else {}
        path = saved(tmp_path, Image.fromarray(photo), name, icc_profile=profile_with(DISPLAY_P3), **options)
        image = load_image(path)
        assert np.abs(image - converted(photo, DISPLAY_P3)).max() <= ICC_LEVELS
        assert np.abs(image.astype(int) - photo).max() > 20

    @pytest.mark.parametrize("mode", ["RGBA", "P"])
    def test_in_other_modes(self, tmp_path: Path, mode: str) -> None:
        picture = Image.new("RGB", (3, 2), (204, 102, 51)).convert(mode)  # a colour of Pillow's palette
        image = load_image(saved(tmp_path, picture, "x.png", icc_profile=profile_with(DISPLAY_P3)))
        assert np.abs(image - converted(np.uint8([204, 102, 51]), DISPLAY_P3)).max() <= ICC_LEVELS

    def test_srgb_keeps_its_bits(self, photo: NDArray[np.uint8], tmp_path: Path) -> None:
        path = saved(tmp_path, Image.fromarray(photo), "x.png", icc_profile=srgb_profile())
        np.testing.assert_array_equal(load_image(path), photo)

    def test_a_pil_image(self, photo: NDArray[np.uint8], tmp_path: Path) -> None:
        path = saved(tmp_path, Image.fromarray(photo), "x.png", icc_profile=profile_with(DISPLAY_P3))
        with Image.open(path) as picture:
            np.testing.assert_array_equal(load_image(picture), load_image(path))

    @pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200])
    def test_damaged_ones_are_ignored_and_that_is_said(
        self, photo: NDArray[np.uint8], tmp_path: Path, profile: bytes, said: pytest.LogCaptureFixture
    ) -> None:
        path = saved(tmp_path, Image.fromarray(photo), "x.png", icc_profile=profile)
        np.testing.assert_array_equal(load_image(path), photo)
        assert "has an ICC profile that is ignored" in said.text

    def test_one_of_other_colours_is_ignored(self, tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
        """Tools that make an image grey leave the profile of its colours."""
        grey = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
        path = saved(tmp_path, grey, "x.png", icc_profile=profile_with(DISPLAY_P3))
        np.testing.assert_array_equal(load_image(path)[..., 0], np.arange(12).reshape(3, 4))
        assert "has an ICC profile that is ignored" in said.text


class TestTransparency:
    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
    def test_is_said_once(self, tmp_path: Path, mode: str, said: pytest.LogCaptureFixture) -> None:
        picture = Image.new("RGBA", (3, 2), (*RED, 128)).convert(mode)
        source = picture if mode == "PA" else saved(tmp_path, picture, "x.tif")  # no format of files has PA
        for _ in range(2):
            load_image(source)
        assert len(said.messages) == 1
        assert "partly transparent, which is ignored" in said.text

    def test_of_a_palette(self, tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
        picture = two_colors("P")
        path = saved(tmp_path, picture, "x.png", transparency=picture.getpixel((0, 0)))
        np.testing.assert_array_equal(load_image(path), [[RED, BLUE]])
        assert "partly transparent" in said.text

    def test_opaque_ones_say_nothing(self, tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
        load_image(saved(tmp_path, two_colors("RGBA"), "x.png"))
        assert said.text == ""


class TestArguments:
    @pytest.mark.parametrize("options", [{"page": "2"}, {"page": 1.5}, {"page": True}, {"bits": "x"}])
    def test_of_another_type(self, options: dict[str, object]) -> None:
        with pytest.raises(ArgumentError, match=r"(page|bits) must be int \| None; got"):
            load_image(Image.new("I;16", (4, 4)), **options)

    def test_masked_values_are_refused(self) -> None:
        pixels = np.zeros((4, 5, 3), np.uint8)
        with pytest.raises(ShapeError, match="must have values everywhere; got 3 masked ones"):
            load_image(np.ma.masked_array(pixels, mask=np.arange(60).reshape(4, 5, 3) < 3))
        np.testing.assert_array_equal(load_image(np.ma.masked_array(pixels)), pixels)

    @pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
    def test_a_matrix(self) -> None:
        np.testing.assert_array_equal(load_image(np.asmatrix(np.eye(4, dtype=np.uint8)))[..., 2], np.eye(4))
