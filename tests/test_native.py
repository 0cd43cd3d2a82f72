from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from atrous import _native


def import_with(isa):
    command = [sys.executable, "-c", "import atrous._native as n; print(n.isa())"]
    return subprocess.run(command, env={**os.environ, "ATROUS_ISA": isa}, capture_output=True, text=True)


def test_the_instruction_set_can_be_lowered_and_a_wrong_name_is_explained():
    assert _native.isa() in ("baseline", "avx2", "avx512")
    assert import_with("baseline").stdout.strip() == "baseline"
    wrong = import_with("sse9")
    assert wrong.returncode != 0
    assert "expected baseline, avx2 or avx512" in wrong.stderr


@pytest.mark.parametrize("swap_rgb", [False, True])
@pytest.mark.parametrize("strided", [False, True])
def test_normalize_image_equals_numpy(rng, swap_rgb, strided):
    image = rng.integers(0, 256, size=(13, 20, 3), dtype=np.uint8)
    image = image[::2, 3:16] if strided else image
    height, width = image.shape[:2]
    mean, std = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
    pad = np.array([7, 150, 255], np.float32)
    canvas = np.broadcast_to(pad, (16, 24, 3)).copy()
    canvas[:height, :width] = image
    expected = ((canvas[..., ::-1] if swap_rgb else canvas) - mean) / std
    got = _native.normalize_image(image, mean, std, swap_rgb, 16, 24, pad, 2)
    assert got.dtype == np.float32
    assert (got == expected.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("image", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 6), np.uint8)[..., ::2]])
def test_normalize_image_refuses_pixels_that_are_not_packed(image):
    with pytest.raises(ValueError, match="packed"):
        _native.normalize_image(image, (0, 0, 0), (1, 1, 1), False, 4, 4, (0, 0, 0))


def test_normalize_image_refuses_to_crop():
    with pytest.raises(ValueError, match="smaller"):
        _native.normalize_image(np.zeros((4, 4, 3), np.uint8), (0, 0, 0), (1, 1, 1), False, 3, 4, (0, 0, 0))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_overlay_blends_and_rounds(rng, alpha):
    image = rng.integers(0, 256, size=(9, 31, 3), dtype=np.uint8)
    labels = rng.integers(0, 256, size=(9, 31), dtype=np.uint8)
    palette = rng.integers(0, 256, size=(256, 3), dtype=np.uint8)
    got = _native.overlay(image, labels, palette, alpha)
    exact = image + alpha * (palette[labels].astype(np.float64) - image)
    assert np.abs(got - exact).max() <= 0.5 + 1e-4  # half a step, and the float32 rounding of values up to 255


def test_overlay_refuses_arrays_that_do_not_match():
    image, labels, palette = np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8), np.zeros((256, 3), np.uint8)
    for wrong in ((image[:2], labels, palette), (image, labels, palette[:9]), (image[..., 0], labels, palette)):
        with pytest.raises(ValueError, match="must be"):
            _native.overlay(*wrong, 0.5)
    with pytest.raises(ValueError, match="alpha"):
        _native.overlay(image, labels, palette, 1.5)


def test_all_finite_sees_every_position():
    values = np.linspace(-1e30, 1e30, 37, dtype=np.float32)
    assert _native.all_finite(values)
    for i in range(len(values)):
        for bad in (np.nan, np.inf, -np.inf):
            broken = values.copy()
            broken[i] = bad
            assert not _native.all_finite(broken)
