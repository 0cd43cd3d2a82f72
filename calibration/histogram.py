"""One histogram of |x| that serves every way to choose a threshold: fixed memory, whatever streams through it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._native import Histogram as NativeHistogram
from ..errors import CalibrationError, ShapeError


class Histogram:
    """Counts of the magnitudes of any number of arrays.

    The bins are `bin_width` = 2^k wide, the smallest k (≥ −100) with which they reach past the largest magnitude: at
    least half of the 4096 bins lie below it. When a larger one comes, neighbours are added together, which is exact.
    Of arrays of more than 2^18 values, every seventh group of eight is counted; `max_abs`, `min` and `max` are of all
    values. So the result depends on the arrays alone, not on their order or the threads.

    For one thread at a time; `add` lets others run meanwhile.
    """

    def __init__(self) -> None:
        self._native = NativeHistogram()

    def add(self, array: NDArray[np.float32], *, threads: int = 0) -> None:
        """Count the magnitudes of float32 values of any shape; `threads=0` uses all cores.

        Raises:
            CalibrationError: a value is NaN or infinite; nothing was counted.
            ShapeError: not float32.
        """
        if array.dtype != np.float32:
            raise ShapeError(
                f"a histogram counts float32 values; got {array.dtype}", expected="float32", actual=str(array.dtype)
            )
        if not self._native.add(np.ascontiguousarray(array), threads):
            broken = int(array.size - np.isfinite(array).sum())
            raise CalibrationError(f"{broken} of {array.size} values are NaN or infinite; expected finite values")

    def merge(self, other: Histogram) -> None:
        """Count what `other` has counted, as if its arrays had been added here."""
        self._native.merge(other._native)

    @property
    def counts(self) -> NDArray[np.int64]:
        """[4096] int64, a copy: bin `i` holds `i * bin_width <= |x| < (i + 1) * bin_width`; zeros are in bin 0."""
        return self._native.counts

    @property
    def bin_width(self) -> float:
        """Width of every bin, a power of two, in the unit of the values."""
        return float(2.0**self._native.exponent)

    @property
    def max_abs(self) -> float:
        """The largest magnitude, exactly; 0 when nothing was counted."""
        return self._native.max_abs

    @property
    def min(self) -> float:
        """The smallest value, exactly; infinity when nothing was counted."""
        return self._native.min

    @property
    def max(self) -> float:
        """The largest value, exactly; minus infinity when nothing was counted."""
        return self._native.max

    @property
    def zeros(self) -> int:
        """How many of the counted values are 0."""
        return self._native.zeros

    @property
    def elements(self) -> int:
        """How many values were counted."""
        return self._native.elements

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._summary() == other._summary() and bool((self.counts == other.counts).all())

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _summary(self) -> tuple[float, ...]:
        return (self.bin_width, self.min, self.max, self.zeros, self.elements)
