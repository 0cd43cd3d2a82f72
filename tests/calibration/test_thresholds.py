from __future__ import annotations

import time
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tolerances import SQUARED_ERROR_RELATIVE, SQUARED_ERROR_STEPS

from atrous.calibration.histogram import Histogram
from atrous.calibration.thresholds import Method, choose_amax, expected_squared_error, sqnr_db
from atrous.errors import CalibrationError

METHODS: tuple[Method, ...] = get_args(Method)
CLIPPING = tuple(method for method in METHODS if method != "minmax")
COUNT = 50_000


def of(values: object) -> Histogram:
    """All values counted: those of a large array would be sampled."""
    histogram = Histogram()
    array = np.asarray(values, np.float32)
    for start in range(0, array.size, 1 << 18):
        histogram.add(array[start : start + (1 << 18)])
    return histogram


@pytest.mark.parametrize("method", METHODS)
def test_values_that_were_not_counted(method: Method) -> None:
    array = np.zeros((1 << 18) + 1, np.float32)
    array[8] = 3  # in the second group of eight, of which only the extremes are known
    histogram = Histogram()
    histogram.add(array)
    assert choose_amax(histogram, method) == 3
    assert sqnr_db(histogram, 3) == np.inf


def normal(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal(COUNT).astype(np.float32)


SHAPES: dict[str, Callable[[np.random.Generator], NDArray[np.float32]]] = {
    "normal": normal,
    "relu": lambda rng: np.maximum(normal(rng), 0),
    "relu6": lambda rng: np.clip(4 * normal(rng), 0, 6),
    "heavy tails": lambda rng: rng.standard_t(3, COUNT).astype(np.float32),
    "uniform": lambda rng: rng.uniform(-1, 1, COUNT).astype(np.float32),
    "one outlier": lambda rng: np.append(normal(rng), np.float32(300)),
    "few": lambda rng: normal(rng)[:200],
    "constant": lambda rng: np.full(100, rng.uniform(1, 2), np.float32),
    "a power of two": lambda rng: np.append(normal(rng)[:1000].clip(-1, 1), np.float32(1)),
}


@pytest.fixture(params=SHAPES)
def array(request: pytest.FixtureRequest, rng: np.random.Generator) -> NDArray[np.float32]:
    return SHAPES[request.param](rng)


def quantize(array: NDArray[np.float32], amax: float) -> NDArray[np.float64]:
    step = amax / 127
    return np.clip(np.round(array.astype(np.float64) / step), -127, 127) * step


def mean_squared_error(array: NDArray[np.float32], amax: float) -> float:
    return float(np.mean((array.astype(np.float64) - quantize(array, amax)) ** 2))


def divergence(histogram: Histogram, kept: int) -> float:
    """KL(P ‖ Q) for one number of bins, bin by bin, as published but for the bin that what is clipped falls into."""
    counts = histogram.counts.astype(float)
    counts[0] -= histogram.zeros
    inside = counts[:kept]
    filled = np.flatnonzero(inside)
    if not filled.size:
        return np.inf
    p = inside.copy()
    p[filled[-1]] += counts[kept:].sum()
    q = np.zeros(kept)
    run = np.arange(kept) * 128 // kept
    for index in range(128):
        members = [bin_ for bin_ in filled if run[bin_] == index]
        q[members] = inside[members].mean() if members else 0
    p, q = p / p.sum(), q / q.sum()
    return float(sum(p[i] * np.log(p[i] / q[i]) for i in filled))


class TestLaws:
    @pytest.mark.parametrize("method", METHODS)
    def test_nothing_beyond_the_largest(self, array: NDArray[np.float32], method: Method) -> None:
        assert 0 < choose_amax(of(array), method) <= np.abs(array).max()

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("power", [-30, 5])
    def test_it_scales_with_the_values(self, array: NDArray[np.float32], method: Method, power: int) -> None:
        assert choose_amax(of(np.ldexp(array, power)), method) == choose_amax(of(array), method) * 2.0**power

    @pytest.mark.parametrize("method", METHODS)
    def test_signs_do_not_matter(self, array: NDArray[np.float32], method: Method) -> None:
        assert choose_amax(of(-array), method) == choose_amax(of(np.abs(array)), method)

    @pytest.mark.parametrize("method", METHODS)
    def test_zeros_do_not_matter(self, array: NDArray[np.float32], method: Method) -> None:
        zeros = np.zeros(30 * array.size, np.float32)
        assert choose_amax(of(np.append(array, zeros)), method) == choose_amax(of(array), method)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_constant_is_its_own_threshold(self, method: Method) -> None:
        for value in (1.3, -1.0, 1e-30):
            assert choose_amax(of(np.full(10, value)), method) == pytest.approx(abs(value), rel=1e-3)

    @pytest.mark.parametrize("method", METHODS)
    def test_zeros_alone_leave_the_choice_to_others(self, method: Method) -> None:
        assert choose_amax(of(np.zeros(10)), method) == 0

    def test_an_outlier_is_clipped_but_by_minmax(self, rng: np.random.Generator) -> None:
        histogram = of(np.append(rng.standard_normal(10 * COUNT), 100))
        assert choose_amax(histogram, "minmax") == 100
        assert all(choose_amax(histogram, method) < 50 for method in CLIPPING)

    @pytest.mark.parametrize("method", METHODS)
    def test_what_ends_in_a_wall_is_kept(self, rng: np.random.Generator, method: Method) -> None:
        """A third of the values of this ReLU6 are exactly 6."""
        assert choose_amax(of(SHAPES["relu6"](rng)), method) == 6

    @given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30))
    def test_any_values(self, values: list[float]) -> None:
        histogram = of(values)
        for method in METHODS:
            amax = choose_amax(histogram, method)
            assert amax > 0 if histogram.max_abs else amax == 0
            assert amax <= histogram.max_abs


class TestPercentile:
    def test_against_numpy(self, array: NDArray[np.float32]) -> None:
        magnitudes = np.abs(array[array != 0])
        expected = np.quantile(magnitudes, 0.9999, method="inverted_cdf")
        histogram = of(array)
        assert abs(choose_amax(histogram, "percentile") - expected) <= histogram.bin_width


class TestEntropy:
    def test_against_one_candidate_after_the_other(self, array: NDArray[np.float32]) -> None:
        histogram = of(array)
        used = int(histogram.max_abs / histogram.bin_width) + 1
        chosen = int(np.ceil(choose_amax(histogram, "entropy") / histogram.bin_width))
        least = min(divergence(histogram, kept) for kept in range(128, used, 211))
        assert divergence(histogram, min(used, chosen)) <= least + 1e-4


class TestSquaredError:
    @pytest.mark.parametrize("share", [0.03, 0.2, 0.51, 0.9, 1.0, 1.7])
    def test_against_the_values(self, array: NDArray[np.float32], share: float) -> None:
        amax = share * float(np.abs(array).max())
        step = amax / 127
        error = expected_squared_error(of(array), amax)
        assert error == pytest.approx(
            mean_squared_error(array, amax), rel=SQUARED_ERROR_RELATIVE, abs=SQUARED_ERROR_STEPS * step**2
        )

    def test_mse_finds_the_least(self, array: NDArray[np.float32]) -> None:
        chosen = choose_amax(of(array), "mse")
        largest = float(np.abs(array).max())
        least = min(mean_squared_error(array, share * largest) for share in np.linspace(0.04, 1, 97))
        step = chosen / 127
        assert mean_squared_error(array, chosen) <= least * (1 + SQUARED_ERROR_RELATIVE) + SQUARED_ERROR_STEPS * step**2

    def test_sqnr(self, rng: np.random.Generator) -> None:
        array = normal(rng)
        expected = 10 * np.log10(np.mean(array**2) / mean_squared_error(array, 3))
        assert sqnr_db(of(array), 3) == pytest.approx(expected, abs=0.05)
        assert sqnr_db(of(np.zeros(4)), 3) == np.inf

    @pytest.mark.parametrize("amax", [0, -1, np.nan, np.inf])
    def test_a_threshold_is_positive(self, amax: float) -> None:
        with pytest.raises(CalibrationError, match="must be positive and finite; got"):
            expected_squared_error(of([1]), amax)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_was_seen(method: Method) -> None:
    with pytest.raises(CalibrationError, match="the histogram is empty"):
        choose_amax(Histogram(), method)


def test_no_such_method() -> None:
    with pytest.raises(CalibrationError, match="'median'; expected one of minmax, percentile, entropy, mse"):
        choose_amax(of([1]), "median")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_many_tensors_take_no_time(rng: np.random.Generator, method: Method) -> None:
    histogram = of(normal(rng))
    start = time.perf_counter()
    for _ in range(20):
        choose_amax(histogram, method)
    assert time.perf_counter() - start < 2  # 0.04 s on an idle machine
