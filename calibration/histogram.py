"""Histogram of |x| in fixed memory, which every method for choosing a threshold uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._native import Histogram as NativeHistogram
from ..errors import CalibrationError, ShapeError


class Histogram:
    """Counts of the magnitudes of any number of arrays.

    Bins are `bin_width` = 2^k wide, with the smallest k (≥ −100) for which the 4096 bins cover the largest magnitude;
    at least half of them lie below it. When a larger magnitude arrives, neighbouring bins are merged, which is exact.
    In arrays of more than 2^18 values, every seventh group of eight is counted; `max_abs`, `min` and `max` cover all
    values. The result depends only on the arrays, not on their order or the number of threads.

    Not thread-safe; `add` releases the GIL.
    """

    def __init__(self) -> None:
        self._native = NativeHistogram()

    def add(self, array: NDArray[np.float32], *, threads: int = 0) -> None:
        """Count the magnitudes of a float32 array of any shape; `threads=0` uses all cores.

        Raises:
            CalibrationError: a value is NaN or infinite; nothing is counted.
            ShapeError: the dtype is not float32.
        """
        if array.dtype != np.float32:
            raise ShapeError(
                f"a histogram takes float32 values; got {array.dtype}", expected="float32", actual=str(array.dtype)
            )
        if not self._native.add(np.ascontiguousarray(array), threads):
            broken = int(array.size - np.isfinite(array).sum())
            raise CalibrationError(f"{broken} of {array.size} values are NaN or infinite; expected finite values")

    def merge(self, other: Histogram) -> None:
        """Add the counts of `other`, as if its arrays had been added here."""
        self._native.merge(other._native)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Copy of the counts [4096] int64; bin `i` holds magnitudes from `i * bin_width`, and zeros are in bin 0."""
        return self._native.counts

    @property
    def bin_width(self) -> float:
        """Width of every bin, a power of two, in the unit of the values."""
        return float(2.0**self._native.exponent)

    @property
    def max_abs(self) -> float:
        """Exact maximum of |x|; 0 if nothing was counted."""
        return self._native.max_abs

    @property
    def min(self) -> float:
        """Exact minimum; infinity if nothing was counted."""
        return self._native.min

    @property
    def max(self) -> float:
        """Exact maximum; minus infinity if nothing was counted."""
        return self._native.max

    @property
    def zeros(self) -> int:
        """Number of counted values that are 0."""
        return self._native.zeros

    @property
    def elements(self) -> int:
        """Number of counted values."""
        return self._native.elements

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._summary() == other._summary() and bool((self.counts == other.counts).all())

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _summary(self) -> tuple[float, ...]:
        return (self.bin_width, self.min, self.max, self.zeros, self.elements)
