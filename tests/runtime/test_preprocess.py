"""The network's input, against its definition written in NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from letterbox import padded, placed
from numpy.typing import NDArray
from PIL import Image
from tolerances import NORMALIZE_RELATIVE, RESIZE_ORDER_LEVELS

from atrous import _native
from atrous.errors import ShapeError
from atrous.exporter.normalization import NORMALIZATIONS
from atrous.manifest import InputSpec, ResizePolicy, Size, SizePolicy
from atrous.runtime.preprocess import fit_size, plan_geometry, prepare_image

RESIZE_LEVELS = 0 if int(PIL.__version__.split(".")[0]) >= 13 else RESIZE_ORDER_LEVELS
SIDE = st.integers(1, 90)
SIZES = SizePolicy((32, 32), (64, 96), (128, 160), 16)


def input_spec(name: str = "imagenet", *, size: SizePolicy = SIZES, resize: str = "none") -> InputSpec:
    norm = NORMALIZATIONS[name]
    spec = InputSpec(size, norm.color_order, norm.mean, norm.std, norm.scale, pad_value=(10, 20, 30))
    return dataclasses.replace(spec, resize=resize)


def levels_from_pillow(image: NDArray[np.uint8], size: Size, threads: int = 0) -> int:
    """How far the native core is from the Pillow that is installed."""
    resized = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    return int(np.abs(_native.resize_image(image, size, threads).astype(int) - resized).max())


def defined(image: NDArray[np.uint8], size: Size, spec: InputSpec) -> NDArray[np.float64]:
    """`(pixel * scale - mean) / std`, padded at the bottom and right, channels first, in float64."""
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = spec.pad_value
    canvas[: image.shape[0], : image.shape[1]] = image
    ordered = canvas if spec.color_order == "RGB" else canvas[:, :, ::-1]
    values: NDArray[np.float64] = (ordered * spec.scale - np.array(spec.mean)) / np.array(spec.std)
    return values.transpose(2, 0, 1)


class TestPrepare:
    @pytest.mark.parametrize("name", sorted(NORMALIZATIONS))
    @pytest.mark.parametrize(
        ("shape", "size"), [((1, 1), (1, 1)), ((1, 1), (32, 48)), ((37, 53), (37, 53)), ((50, 33), (64, 48))]
    )
    @pytest.mark.parametrize("threads", [0, 1, 3])
    def test_equals_its_definition(
        self, rng: np.random.Generator, name: str, shape: Size, size: Size, threads: int
    ) -> None:
        image, spec = rng.integers(0, 256, (*shape, 3), dtype=np.uint8), input_spec(name)
        prepared = prepare_image(image, size, spec, threads=threads)
        expected = defined(image, size, spec)
        assert prepared.dtype == np.float32
        assert prepared.shape == (3, *size)
        # Relative to the terms of the subtraction: the difference itself may be 0.
        largest = (255 * spec.scale + np.abs(spec.mean)) / spec.std
        assert np.abs(prepared - expected).max() <= NORMALIZE_RELATIVE * largest.max()

    def test_a_tile_of_a_picture_is_read_in_place(self, rng: np.random.Generator) -> None:
        picture, spec = rng.integers(0, 256, (60, 70, 3), dtype=np.uint8), input_spec()
        tile = picture[16:48, 30:62]
        np.testing.assert_array_equal(prepare_image(tile, (32, 32), spec), prepare_image(tile.copy(), (32, 32), spec))

    @pytest.mark.parametrize("shape", [(33, 32), (32, 33)])
    def test_a_picture_that_does_not_fit_is_refused(self, shape: Size) -> None:
        with pytest.raises(ShapeError, match="does not fit"):
            prepare_image(np.zeros((*shape, 3), np.uint8), (32, 32), input_spec())

    @pytest.mark.parametrize("shape", [(1, 1), (200, 64), (64, 96), (500, 700)])
    def test_stretch_resizes_like_pillow(self, rng: np.random.Generator, shape: Size) -> None:
        image, spec = rng.integers(0, 256, (*shape, 3), dtype=np.uint8), input_spec(resize="stretch")
        resized = _native.resize_image(image, (64, 96))
        np.testing.assert_array_equal(
            prepare_image(image, (64, 96), spec), prepare_image(resized, (64, 96), input_spec())
        )
        assert levels_from_pillow(image, (64, 96)) <= RESIZE_LEVELS

    @pytest.mark.parametrize("name", ["imagenet", "caffe"])
    @pytest.mark.parametrize(
        "shape", [(1, 1), (200, 64), (64, 96), (128, 192), (500, 701), (1, 1000), (90, 2), (63, 96)]
    )
    def test_letterbox_is_pillows_image_on_a_canvas(self, rng: np.random.Generator, name: str, shape: Size) -> None:
        image, spec = rng.integers(0, 256, (*shape, 3), dtype=np.uint8), input_spec(name, resize="letterbox")
        expected = prepare_image(padded(image, (64, 96), spec.pad_value), (64, 96), input_spec(name))
        levels = np.abs(prepare_image(image, (64, 96), spec) - expected) * np.reshape(spec.std, (3, 1, 1)) / spec.scale
        assert levels.max() <= RESIZE_LEVELS + NORMALIZE_RELATIVE * 512


class TestResize:
    @pytest.mark.parametrize(
        ("shape", "size"),
        [
            ((1, 1), (5, 7)), ((7, 3), (3, 9)), ((30, 40), (64, 64)), ((50, 90), (16, 8)), ((5, 200), (1, 1)),
            ((16, 16), (16, 16)), ((400, 100), (100, 90)), ((300, 300), (90, 200)), ((100, 100), (60, 120)),
            ((90, 60), (70, 50)), ((91, 60), (70, 50)), ((60, 90), (50, 70)), ((40, 30), (90, 30)),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("threads", [0, 1, 3])
    def test_is_pillow_13s(self, rng: np.random.Generator, shape: Size, size: Size, threads: int) -> None:
        """Whatever Pillow is installed: older ones go along rows first, and each pass rounds."""
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        assert levels_from_pillow(image, size, threads) <= RESIZE_LEVELS

    @given(shape=st.tuples(SIDE, SIDE), size=st.tuples(SIDE, SIDE), seed=st.integers(0, 99))
    def test_any_size(self, shape: Size, size: Size, seed: int) -> None:
        image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
        assert levels_from_pillow(image, size) <= RESIZE_LEVELS

    def test_rows_may_lie_apart(self, rng: np.random.Generator) -> None:
        image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        for part in (image[3:30, 5:41], image[::-1], image[:, ::-2]):
            np.testing.assert_array_equal(
                _native.resize_image(part, (20, 30)), _native.resize_image(part.copy(), (20, 30))
            )

    @pytest.mark.parametrize("image", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)], ids=["none", "grey"])
    def test_what_is_no_image_is_refused(self, image: NDArray[np.uint8]) -> None:
        with pytest.raises(ValueError, match=r"may be empty|must be \[H, W, C\]"):
            _native.resize_image(image, (2, 2))


class TestGeometry:
    @pytest.mark.parametrize(
        ("image", "offset", "expected"),
        [
            ((1, 1), 0, (32, 32)),
            ((64, 96), 0, (64, 96)),
            ((65, 97), 0, (80, 112)),
            ((65, 97), 1, (65, 97)),
            ((66, 98), 1, (81, 113)),
            ((1, 1), 1, (33, 33)),
            ((300, 33), 0, (304, 48)),  # beyond the maximum: tiled
        ],
    )
    def test_padding_goes_to_whole_cells(self, image: Size, offset: int, expected: Size) -> None:
        sizes = SizePolicy((32 + offset,) * 2, (64 + offset, 96 + offset), (128 + offset, 160 + offset), 16, offset)
        geometry = plan_geometry(image, input_spec(size=sizes))
        assert (geometry.image_size, geometry.input_size) == (image, expected)

    @pytest.mark.parametrize("resize", ["stretch", "letterbox"])
    def test_what_is_resized_goes_to_the_best_size(self, resize: ResizePolicy) -> None:
        geometry = plan_geometry((1000, 3), input_spec(resize=resize))
        assert (geometry.image_size, geometry.input_size) == ((1000, 3), (64, 96))

    @pytest.mark.parametrize(
        ("image", "size", "origin"),
        [
            ((64, 96), (64, 96), (0, 0)),
            ((640, 960), (64, 96), (0, 0)),
            ((2, 3), (64, 96), (0, 0)),
            ((100, 100), (64, 64), (0, 16)),
            ((33, 100), (32, 96), (16, 0)),  # 31.68
            ((100, 33), (64, 21), (0, 37)),  # 21.12, and an odd rest
            ((43, 192), (22, 96), (21, 0)),  # 21.5
            ((1, 1000), (1, 96), (31, 0)),  # 0.096
            ((1000, 1), (64, 1), (0, 47)),
            ((1 << 24, 1 << 24), (64, 64), (0, 16)),
        ],
    )
    def test_a_letterbox_is_the_largest_that_fits_in_the_middle(self, image: Size, size: Size, origin: Size) -> None:
        assert _native.place_image(image, (64, 96), "letterbox") == (size, origin)

    @given(image=st.tuples(SIDE, SIDE), size=st.tuples(SIDE, SIDE))
    def test_a_letterbox_of_any_size(self, image: Size, size: Size) -> None:
        assert _native.place_image(image, size, "letterbox") == placed(image, size)

    def test_an_empty_image_is_refused(self) -> None:
        with pytest.raises(ShapeError, match="empty image"):
            prepare_image(np.zeros((0, 4, 3), np.uint8), (32, 32), input_spec(resize="letterbox"))

    def test_a_fixed_size_of_no_whole_cells_stands(self) -> None:
        fixed = SizePolicy((513, 513), (513, 513), (513, 513), 1)
        assert plan_geometry((400, 513), input_spec(size=fixed)).input_size == (513, 513)

    @given(length=st.integers(1, 5000), multiple=st.integers(1, 64), offset=st.integers(0, 1))
    def test_fit_size_is_the_smallest_that_fits(self, length: int, multiple: int, offset: int) -> None:
        fitted = fit_size(length, multiple, offset)
        assert length <= fitted < length + multiple
        assert (fitted - offset) % multiple == 0
