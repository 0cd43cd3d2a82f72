"""Choice of the threshold `amax` of an activation from its histogram.

`amax` gives the symmetric INT8 scale `amax / 127`: larger magnitudes are clipped, all others are rounded to one of 127
levels. `minmax` clips nothing; the other methods clip rare large values in exchange for a finer step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from .histogram import Histogram
from .options import Method

#: Maximum of a symmetric INT8 value.
LEVELS: Final = 127
#: Share of the values, in percent, that `percentile` does not clip.
PERCENTILE: Final = 99.99
#: Levels of the quantized distribution of `entropy`, as in TensorRT's calibration.
_ENTROPY_LEVELS: Final = 128

_Floats = NDArray[np.float64]


def choose_amax(histogram: Histogram, method: Method) -> float:
    """Choose the threshold by `method`, in the unit of the values; at most `histogram.max_abs`.

    - `minmax`: the largest magnitude.
    - `percentile`: the 99.99th percentile of the magnitudes.
    - `entropy`: the minimum Kullback–Leibler divergence between the clipped distribution and its 128-level version, by
      S. Migacz, "8-bit Inference with TensorRT", GTC 2017.
    - `mse`: the minimum expected squared error of clipping and rounding.

    All methods ignore zeros: every scale represents them exactly, and after a ReLU they are the majority. If all values
    are 0, the threshold is 0, so that other tensors of the same group determine a shared threshold.

    Raises:
        CalibrationError: the histogram is empty, or `method` is unknown.
    """
    choose = _METHODS.get(method)
    if choose is None:
        raise CalibrationError(f"unknown calibration method {method!r}; expected one of {', '.join(_METHODS)}")
    if histogram.elements == 0:
        raise CalibrationError("cannot choose a threshold: the histogram is empty")
    # Only a sample is counted: if all of it is 0, the maximum is the only known magnitude.
    return choose(histogram) if histogram.elements > histogram.zeros else histogram.max_abs


def expected_squared_error(histogram: Histogram, amax: float) -> float:
    """Mean squared error of INT8 at threshold `amax` > 0, assuming a uniform distribution within each bin."""
    if not 0 < amax < float("inf"):
        raise CalibrationError(f"a threshold must be positive and finite; got {amax}")
    width = histogram.bin_width
    return float(_Moments(histogram).squared_error(np.array([amax / width]))[0]) * width**2 / histogram.elements


def sqnr_db(histogram: Histogram, amax: float) -> float:
    """Signal-to-quantization-noise ratio at threshold `amax`, in dB; infinite if all values are 0."""
    if histogram.elements == histogram.zeros:
        return float("inf")
    error = expected_squared_error(histogram, amax)
    power = _Moments(histogram).power * histogram.bin_width**2 / histogram.elements
    return float(10 * np.log10(power / error)) if error else float("inf")


def _minmax(histogram: Histogram) -> float:
    return histogram.max_abs


def _percentile(histogram: Histogram) -> float:
    cumulated = np.cumsum(_nonzero_counts(histogram))
    wanted = cumulated[-1] * PERCENTILE / 100
    index = int(np.searchsorted(cumulated, wanted))
    before = cumulated[index - 1] if index else 0
    inside = (wanted - before) / (cumulated[index] - before)
    return min(float(index + inside) * histogram.bin_width, histogram.max_abs)


def _entropy(histogram: Histogram) -> float:
    counts = _nonzero_counts(histogram)
    kept = _candidates(histogram)
    divergence = _divergences(counts, kept)
    best = len(kept) - 1 - int(np.argmin(divergence[::-1]))  # of ties, the largest threshold
    return min(int(kept[best]) * histogram.bin_width, histogram.max_abs)


def _mse(histogram: Histogram) -> float:
    thresholds = np.minimum(_candidates(histogram), histogram.max_abs / histogram.bin_width)
    error = _Moments(histogram).squared_error(thresholds)
    best = len(error) - 1 - int(np.argmin(error[::-1]))
    return float(thresholds[best]) * histogram.bin_width


_METHODS: Final[Mapping[str, Callable[[Histogram], float]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}


def _nonzero_counts(histogram: Histogram) -> NDArray[np.int64]:
    """Counts up to the last used bin, without exact zeros."""
    counts = histogram.counts
    counts[0] -= histogram.zeros
    return counts[: int(histogram.max_abs / histogram.bin_width) + 1]


def _candidates(histogram: Histogram) -> NDArray[np.int64]:
    """Candidate thresholds in bins, from 128 to all used bins; each at most 1/128 (or a bin) above the previous one."""
    used = int(histogram.max_abs / histogram.bin_width) + 1
    if used <= _ENTROPY_LEVELS:
        return np.array([used])
    steps = int(np.ceil(np.log(used / _ENTROPY_LEVELS) * _ENTROPY_LEVELS)) + 1
    return np.unique(np.geomspace(_ENTROPY_LEVELS, used, steps).round().astype(np.int64))


def _divergences(counts: NDArray[np.int64], kept: NDArray[np.int64]) -> _Floats:
    """KL(P ‖ Q) in nats for each number of kept bins.

    P is the kept bins, with all clipped values added to the last non-empty one: added to the very last bin, as
    published, they would make every threshold in a gap before an outlier infinitely bad. Q divides the bins into 128
    runs and spreads the count of each run evenly over its non-empty bins. With S the sum and n the number of non-empty
    bins of a run, Σ p ln(p/q) = Σ p ln p − Σ S ln(S/n) needs only prefix sums, not a pass over the bins per candidate.
    """
    values = counts.astype(np.float64)
    runs = np.arange(_ENTROPY_LEVELS + 1)
    borders = -(-runs * kept[:, None] // _ENTROPY_LEVELS)  # bin j is in run ⌊128 j / kept⌋
    sums = np.diff(_prefix(values)[borders])
    filled = np.diff(_prefix((counts > 0).astype(np.float64))[borders])
    level = np.divide(sums, filled, out=np.ones_like(sums), where=filled > 0)
    inside = _prefix(values)[kept]
    clipped = values.sum() - inside
    last = np.maximum.accumulate(np.where(counts > 0, np.arange(len(counts)), 0))[kept - 1]
    last_level = level[np.arange(len(kept)), last * _ENTROPY_LEVELS // kept]
    own = _prefix(_xlogx(values))[kept] - _xlogx(values[last]) + _xlogx(values[last] + clipped)
    cross = (sums * np.log(level)).sum(axis=1) + clipped * np.log(last_level)
    # P and Q are normalized by different totals: P includes the clipped values.
    share = np.divide(inside, values.sum())
    divergence = (own - cross) / values.sum() + np.log(share, out=np.full_like(share, np.inf), where=share > 0)
    return np.asarray(divergence)


class _Moments:
    """Integrals of 1, x and x² over the distribution of the non-zero values, in units of bins.

    The distribution is uniform within each bin. The last bin ends at the largest magnitude; it would otherwise extend
    beyond it.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._counts = _nonzero_counts(histogram).astype(np.float64)
        lower = np.arange(len(self._counts), dtype=np.float64)
        self._upper = np.minimum(lower + 1, histogram.max_abs / histogram.bin_width)
        self._lower = lower
        self._prefixes = [
            _prefix(self._counts * moment)
            for moment in (
                np.ones_like(lower),
                (lower + self._upper) / 2,
                (lower**2 + lower * self._upper + self._upper**2) / 3,
            )
        ]

    @property
    def power(self) -> float:
        """Sum of the squares of all values."""
        return float(self._prefixes[2][-1])

    def squared_error(self, thresholds: _Floats) -> _Floats:
        """Sum of squared errors (clipping and rounding) of INT8 for each threshold."""
        step = thresholds[:, None] / LEVELS
        level = np.arange(LEVELS + 1) * step
        borders = np.concatenate([level[:, :1], level[:, 1:] - step / 2], axis=1)
        end = np.full_like(thresholds, self._upper[-1])[:, None]
        borders = np.minimum(np.concatenate([borders, end], axis=1), end)
        count, first, second = (np.diff(each) for each in self._cumulate(borders))
        total = (second - 2 * level * first + level**2 * count).sum(axis=1)
        return np.asarray(np.maximum(total, 0))  # cancellation can make a tiny error negative

    def _cumulate(self, x: _Floats) -> list[_Floats]:
        """Count, sum and sum of squares of the values below each `x`."""
        index = np.minimum(x.astype(np.int64), len(self._counts) - 1)
        low = self._lower[index]
        width = self._upper[index] - low
        inside = np.divide(x - low, width, out=np.ones_like(x), where=width > 0)
        share = self._counts[index] * inside
        parts = (share, share * (low + x) / 2, share * (low**2 + low * x + x**2) / 3)
        return [prefix[index] + part for prefix, part in zip(self._prefixes, parts, strict=True)]


def _prefix(values: _Floats) -> _Floats:
    """[n] → [n + 1]: exclusive prefix sums."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _xlogx(x: _Floats) -> _Floats:
    return np.asarray(x * np.log(x, out=np.zeros_like(x), where=x > 0))
