"""Preprocessing of bands against NumPy, Pillow and torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from band_bundles import ALL, FLOATS, GREY16, INFRARED, RGBN, scene
from PIL import Image

from atrous import _native
from atrous.bands import Bands
from atrous.manifest import InputSpec, SizePolicy
from atrous.runtime.preprocess import color_image, prepare_image

POLICY = SizePolicy((32, 32), (40, 56), (128, 128), 8)


def spec(bands: Bands, resize="none") -> InputSpec:
    """Different constants for each band."""
    low, high = np.array(bands.ranges).T
    mean, std = low + 0.3 * (high - low), (high - low) * np.linspace(0.2, 0.4, len(low))
    pad = tuple(np.round(low + 0.6 * (high - low)))
    return InputSpec(POLICY, mean=tuple(mean), std=tuple(std), scale=1.0, pad_value=pad, bands=bands, resize=resize)


def scaled(image: np.ndarray, inputs: InputSpec) -> np.ndarray:
    mean, std = (np.array(values, np.float32) for values in (inputs.mean, inputs.std))
    return ((image.astype(np.float32) - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("bands", [*ALL.values(), Bands.of(32), Bands.of(3, "uint16"), Bands.of(5, "float32")], ids=str)
@pytest.mark.parametrize("size", [(40, 56), (33, 41), (1, 1)])
def test_values_are_scaled_and_padded(bands, size) -> None:
    inputs, image = spec(bands), scene(bands, size)
    expected = np.broadcast_to(
        scaled(np.array(inputs.pad_value)[None, None], inputs), (len(bands.names), 40, 56)
    ).copy()
    expected[:, : size[0], : size[1]] = scaled(image, inputs)
    for threads in (1, 3):
        np.testing.assert_array_equal(prepare_image(image, (40, 56), inputs, threads=threads), expected)


def test_views_of_images_are_read_as_they_lie() -> None:
    inputs, image = spec(RGBN), scene(RGBN, (60, 70))
    part = image[10:40, 20:60]
    np.testing.assert_array_equal(prepare_image(part, (40, 56), inputs), prepare_image(part.copy(), (40, 56), inputs))
    grey = scene(GREY16, (30, 40))[..., 0]
    prepared = prepare_image(grey[..., None], (40, 56), spec(GREY16))
    np.testing.assert_array_equal(prepared, prepare_image(grey[..., None].copy(), (40, 56), spec(GREY16)))


SIZES = [((20, 30), (64, 96)), ((90, 50), (24, 32)), ((61, 37), (20, 90)), ((7, 100), (40, 3)), ((1, 1), (5, 7))]


@pytest.mark.parametrize(("size", "out_size"), SIZES)
class TestResize:
    def test_bytes_of_four_bands_are_pillows(self, size, out_size) -> None:
        image = scene(RGBN, size)
        resized = _native.resize_image(image, out_size)
        for band in range(4):  # by itself each: Pillow would take the fourth for alpha, and weigh by it
            grey = np.repeat(image[..., band : band + 1], 3, axis=2)
            np.testing.assert_array_equal(resized[..., band], _native.resize_image(grey, out_size)[..., 0])
            wanted = np.asarray(Image.fromarray(image[..., band]).resize(out_size[::-1], Image.Resampling.BILINEAR))
            assert np.abs(resized[..., band].astype(int) - wanted).max() <= 1  # Pillow before 13 has one order

    @pytest.mark.parametrize("bands", [GREY16, Bands.of(4, "uint16"), FLOATS, Bands.of(7, "float32")], ids=str)
    def test_wide_values_are_those_of_torch(self, bands, size, out_size) -> None:
        image = scene(bands, size)
        maps = torch.from_numpy(image.astype(np.float64).transpose(2, 0, 1)[None].copy())
        expected = torch.nn.functional.interpolate(maps, out_size, mode="bilinear", antialias=True)[0].numpy()
        resized = _native.resize_image(image, out_size, threads=2)
        assert resized.dtype == image.dtype
        spread = np.subtract(*reversed(np.array(bands.ranges).T))
        # Weights have 22 bits; whole numbers are rounded after each of two passes.
        allowed = 1e-5 * spread.max() + (1.01 if bands.dtype == "uint16" else 0)
        assert np.abs(resized.transpose(2, 0, 1) - expected).max() <= allowed

    def test_the_whole_range_stays_inside(self, size, out_size) -> None:
        for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
            image = np.full((*size, 2), top, dtype)
            image[..., 1] = 0
            resized = _native.resize_image(image, out_size)
            assert (resized == [top, 0]).all()


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("bands", ALL.values(), ids=str)
def test_images_are_fitted_before_they_are_scaled(bands, resize) -> None:
    inputs, image = spec(bands, resize), scene(bands, (30, 90))
    size, (top, left) = _native.place_image((30, 90), (40, 56), resize)
    prepared = prepare_image(image, (40, 56), inputs)
    covered = prepared[:, top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(covered, scaled(_native.resize_image(image, size), inputs))


class TestColors:
    def test_bytes_in_their_whole_range_stay(self) -> None:
        image = scene(RGBN, (9, 11))
        np.testing.assert_array_equal(color_image(image, RGBN), image[..., :3])
        np.testing.assert_array_equal(color_image(image, INFRARED), image[..., [3, 0, 1]])
        np.testing.assert_array_equal(color_image(image[..., :3], None), image[..., :3])

    def test_weights_shrink_what_the_crf_sees(self) -> None:
        image = scene(RGBN, (9, 11))
        expected = np.floor(image[..., [3, 0, 1]] * [1, 0.5, 0.25] + 0.5)
        np.testing.assert_array_equal(color_image(image, INFRARED, weighted=True), expected)

    def test_one_band_is_grey_and_clipped_to_its_range(self) -> None:
        image = np.array([[0, 1, 2048, 4095, 5000, 65535]], np.uint16)[..., None]
        expected = np.array([0, 0, 128, 255, 255, 255], np.uint8)
        np.testing.assert_array_equal(color_image(image, GREY16), np.repeat(expected[None, :, None], 3, axis=2))

    def test_two_bands_leave_blue_empty(self) -> None:
        bands = replace(FLOATS, colors=(1, 0), crf_weights=(1.0, 1.0))
        image = np.array([[[-25, -30], [-12.5, -17.5], [0, -5], [9, -90]]], np.float32)
        expected = [[[0, 0, 0], [128, 128, 0], [255, 255, 0], [0, 255, 0]]]
        np.testing.assert_array_equal(color_image(image, bands), expected)
