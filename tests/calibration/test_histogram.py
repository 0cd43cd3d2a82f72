from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import needs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from atrous.calibration.histogram import Histogram
from atrous.errors import CalibrationError, ShapeError

BINS = 4096
#: Long enough for several pieces of work.
LONG = 300_001

#: Ordinary magnitudes, those near powers of two, and the extremes of float32.
values = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-10, 10, width=32),
    st.sampled_from([0.0, -0.0, 1.0, np.nextafter(np.float32(2), np.float32(0)), 2.0, 1e-45, 2.0**-88, 2.0**-87]),
)
arrays = st.lists(values, max_size=40).map(lambda each: np.array(each, np.float32))


def histogram_of(*parts: NDArray[np.float32], threads: int = 0) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part, threads=threads)
    return histogram


def counted(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values of an array that are counted: of a large one, in every 2048, those of every seventh group of eight."""
    flat = array.ravel()
    return flat if flat.size <= 1 << 18 else flat[np.arange(flat.size) % 2048 // 8 % 7 == 0]


def reference(array: NDArray[np.float32]) -> tuple[float, NDArray[np.int64]]:
    """Width and counts, the obvious way."""
    largest = np.abs(array.astype(np.float64)).max() if array.size else 0
    exponent = -100
    while largest >= BINS * 2.0**exponent:
        exponent += 1
    magnitudes = np.abs(counted(array).astype(np.float64))
    return 2.0**exponent, np.bincount((magnitudes / 2.0**exponent).astype(np.int64), minlength=BINS)


def check(histogram: Histogram, array: NDArray[np.float32]) -> None:
    width, counts = reference(array)
    assert histogram.bin_width == width
    np.testing.assert_array_equal(histogram.counts, counts)
    assert histogram.elements == counted(array).size
    assert histogram.zeros == (counted(array) == 0).sum()
    assert histogram.max_abs == (np.abs(array).max() if array.size else 0)
    assert (histogram.min, histogram.max) == ((array.min(), array.max()) if array.size else (np.inf, -np.inf))


@given(array=arrays)
def test_any_values_against_numpy(array: NDArray[np.float32]) -> None:
    check(histogram_of(array), array)


@given(parts=st.lists(arrays, max_size=5), data=st.data())
def test_neither_order_nor_division_matter(parts: list[NDArray[np.float32]], data: st.DataObject) -> None:
    whole = histogram_of(np.concatenate([np.array([], np.float32), *parts]))
    shuffled = histogram_of(*data.draw(st.permutations(parts)))
    cut = data.draw(st.integers(0, len(parts)))
    merged = histogram_of(*parts[:cut])
    merged.merge(histogram_of(*parts[cut:]))
    assert shuffled == whole
    assert merged == whole


@given(
    array=arrays.filter(lambda each: each.size > 0 and 1e-20 < np.abs(each).max() < 1e20), power=st.integers(-20, 20)
)
def test_scaling_by_a_power_of_two_changes_the_width_alone(array: NDArray[np.float32], power: int) -> None:
    array = np.where(np.abs(array) < 1e-25, np.float32(0), array)  # so that none loses digits
    plain, scaled = histogram_of(array), histogram_of(np.ldexp(array, power))
    assert scaled.bin_width == plain.bin_width * 2.0**power
    np.testing.assert_array_equal(scaled.counts, plain.counts)


@pytest.mark.parametrize("shape", [(LONG,), (1, 3, 101, 103), (7,), ()])
@pytest.mark.parametrize("relu", [False, True])
def test_many_values_against_numpy(rng: np.random.Generator, shape: tuple[int, ...], *, relu: bool) -> None:
    array = np.asarray(rng.standard_normal(shape) * 3, np.float32)
    array = np.maximum(array, 0) if relu else array
    check(histogram_of(array), array)


def test_at_least_half_of_the_bins_are_used(rng: np.random.Generator) -> None:
    for scale in (1e-20, 0.7, 1.0, 3e38):
        array = np.array([scale], np.float32) * rng.uniform(-1, 1, 100).astype(np.float32)
        assert histogram_of(array).counts[BINS // 2 :].any()


def test_any_number_of_threads_gives_the_same(rng: np.random.Generator) -> None:
    # Later pieces are larger, so that pieces differ in their widths.
    array = (rng.standard_normal(2 * LONG) * np.geomspace(1e-3, 1e3, 2 * LONG)).astype(np.float32)
    first = histogram_of(array, threads=1)
    for threads in (2, 3, 8):
        assert histogram_of(array, threads=threads) == first


def test_it_grows_with_what_comes(rng: np.random.Generator) -> None:
    histogram, seen = Histogram(), np.array([], np.float32)
    widths = []
    for scale in (1e-3, 1, 0.5, 40, 1e30):
        part = (rng.standard_normal(1000) * scale).astype(np.float32)
        histogram.add(part)
        seen = np.concatenate([seen, part])
        check(histogram, seen)
        widths.append(histogram.bin_width)
    assert all(before <= after for before, after in pairwise(widths))


@pytest.mark.parametrize("position", [0, 6, LONG // 2, LONG - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_whole(position: int, value: float) -> None:
    histogram = histogram_of(np.ones(5, np.float32))
    array = np.full(LONG, 1e10, np.float32)
    array[position] = value
    with pytest.raises(CalibrationError, match="1 of 300001 values are NaN or infinite"):
        histogram.add(array)
    assert histogram == histogram_of(np.ones(5, np.float32))


def test_empty_and_zero() -> None:
    check(histogram_of(), np.array([], np.float32))
    check(histogram_of(np.zeros((0, 3), np.float32)), np.array([], np.float32))
    zeros = histogram_of(np.array([0.0, -0.0, -0.0], np.float32))
    check(zeros, np.zeros(3, np.float32))
    assert not np.signbit([zeros.max_abs, zeros.min, zeros.max]).any()
    zeros.add(np.array([5], np.float32))
    check(zeros, np.array([0, 0, 0, 5], np.float32))


def test_views_that_are_not_contiguous(rng: np.random.Generator) -> None:
    array = rng.standard_normal((20, 30)).astype(np.float32)
    assert histogram_of(array[::2, ::3], array.T) == histogram_of(array[::2, ::3].copy(), array)


def test_other_types_are_refused() -> None:
    with pytest.raises(ShapeError, match="takes float32 values; got float64"):
        Histogram().add(np.ones(3))  # type: ignore[arg-type]


def test_it_equals_itself_only() -> None:
    histogram = histogram_of(np.ones(3, np.float32))
    assert histogram != histogram_of(np.ones(4, np.float32))
    assert histogram != histogram_of(np.full(3, 1.001, np.float32))
    assert histogram != "histogram"


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_every_instruction_set_counts_alike(rng: np.random.Generator, tmp_path: Path, isa: str) -> None:
    array = rng.standard_normal(10_007).astype(np.float32)
    np.save(tmp_path / "values.npy", array)
    script = (
        "import numpy as np; from atrous import _native; h = _native.Histogram(); h.add(np.load('values.npy')); "
        "np.savez('out.npz', counts=h.counts, rest=[h.exponent, h.min, h.max, h.zeros, h.elements])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, "ATROUS_ISA": isa}, cwd=tmp_path, capture_output=True, text=True)
    if "this CPU runs at most" in done.stderr:
        needs.OTHER_ISA.skip(f"no {isa}")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        histogram = histogram_of(array)
        np.testing.assert_array_equal(found["counts"], histogram.counts)
        rest = [np.log2(histogram.bin_width), histogram.min, histogram.max, histogram.zeros, histogram.elements]
        assert found["rest"].tolist() == rest
