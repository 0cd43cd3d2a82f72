from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import needs
import numpy as np
import pybind11
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


UNSCALED = _native.PixelScaling((0, 0, 0), (1, 1, 1), False, (0, 0, 0))


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
    got = _native.normalize_image(image, _native.PixelScaling(mean, std, swap_rgb, pad), (16, 24), threads=2)
    assert got.dtype == np.float32
    assert (got == expected.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("image", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 6), np.uint8)[..., ::2]])
def test_normalize_image_refuses_pixels_that_are_not_packed(image):
    with pytest.raises(ValueError, match="packed"):
        _native.normalize_image(image, UNSCALED, (4, 4))


def test_normalize_image_refuses_to_crop():
    with pytest.raises(ValueError, match="smaller"):
        _native.normalize_image(np.zeros((4, 4, 3), np.uint8), UNSCALED, (3, 4))


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


def marginals_by(core_folder):
    """Marginals of a small CRF by the native core in a folder, in a process of its own."""
    script = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np, _native
rng = np.random.default_rng(0)
image = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
scores = rng.random((5, 37 * 53), np.float32) + np.float32(0.1)
bilateral, gaussian = _native.Filter(), _native.Filter()
bilateral.build_bilateral(image, (20.0, 20.0), (15.0, 15.0, 15.0))
gaussian.build_gaussian(37, 53, (3.0, 3.0))
field = _native.MeanField(37 * 53, 5)
field.set_unary_from_probabilities(scores / scores.sum(axis=0))
for term in (bilateral, gaussian):
    field.add_term(term, np.full(5, -4.0, np.float32))
field.infer(5)
sys.stdout.buffer.write(field.marginals().tobytes())
"""
    run = subprocess.run([sys.executable, "-I", "-c", script, str(core_folder)], capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


@needs.CLANG.unless(shutil.which("clang++") is not None)
@pytest.mark.slow
def test_clang_builds_the_core_without_warnings_and_to_the_same_bits(tmp_path):
    root = Path(_native.__file__).parent
    (flags,) = re.findall(r"^COMPILE_ARGS = (\[.*\])$", (root / "setup.py").read_text(), re.MULTILINE)
    # Not optimized, which takes half of the time; `make check-wheels` compares what clang optimized.
    kept = [flag for flag in ast.literal_eval(flags) if flag != "-O3"]
    options = [*kept, "-O0", "-Werror", "-std=c++17", "-fPIC"]
    includes = [f"-I{folder}" for folder in (".", pybind11.get_include(), sysconfig.get_path("include"))]

    def compile_one(source):
        target = tmp_path / ("-".join(source.relative_to(root).parts) + ".o")
        command = ["clang++", *options, "-fvisibility=hidden", *includes, "-c", str(source), "-o", str(target)]
        run = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sorted([*root.glob("native/*.cpp"), *root.glob("*/csrc/*.cpp")])))
    core = tmp_path / "core" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    core.parent.mkdir()
    subprocess.run(["clang++", "-shared", "-pthread", *objects, "-o", str(core)], check=True)
    marginals = marginals_by(root)
    assert len(marginals) == 4 * 5 * 37 * 53
    assert marginals_by(core.parent) == marginals
