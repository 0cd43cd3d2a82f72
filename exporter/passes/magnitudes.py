"""Magnitudes of values, and a test whether they fit FP16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ...arrays import FloatArray

#: Largest finite float16.
HALF_MAX: Final = 65504.0
#: Smallest normal float16; below it precision is lost gradually, and many kernels flush to zero.
HALF_TINY: Final = 2.0**-14
#: If the maximum of a tensor is at least this, flushing values below `HALF_TINY` costs no more than rounding the
#: maximum, whose relative error is 2⁻¹¹.
_HARMLESS_MAX: Final = HALF_TINY * 2**11
#: Maximum share of non-zero values below `HALF_TINY` in a tensor of small values.
_MAX_TINY_SHARE: Final = 0.1


@dataclass
class Magnitudes:
    """Running statistics of |x| over any number of tensors, in constant memory.

    Attributes:
        max_abs: maximum; NaN or infinite if any value is.
        min_nonzero: minimum of the non-zero magnitudes; infinite if there is none.
        nonzero: number of values that are not 0.
        tiny: number of non-zero values below `HALF_TINY`.
        elements: number of values in the largest tensor.
    """

    max_abs: float = 0.0
    min_nonzero: float = float("inf")
    nonzero: int = 0
    tiny: int = 0
    elements: int = 0

    def add(self, array: FloatArray) -> None:
        """Add a tensor of any shape."""
        magnitudes = np.abs(array).ravel()
        self.elements = max(self.elements, magnitudes.size)
        if not magnitudes.size:
            return
        self.max_abs = float(np.maximum(self.max_abs, magnitudes.max()))  # unlike max(), keeps a NaN
        small = magnitudes[magnitudes < HALF_TINY]
        small = small[small > 0]
        self.tiny += small.size
        self.nonzero += int(np.count_nonzero(magnitudes))
        smallest = small if small.size else magnitudes[magnitudes > 0]
        if smallest.size:
            self.min_nonzero = min(self.min_nonzero, float(smallest.min()))

    @property
    def tiny_share(self) -> float:
        """Share of the non-zero values that are below `HALF_TINY`, 0–1."""
        return self.tiny / self.nonzero if self.nonzero else 0.0

    def misfit(self, *, limit: float = HALF_MAX, ignore_tiny: bool = False) -> str | None:
        """Reason why the values do not fit FP16, or None; `limit` is the maximum magnitude to accept."""
        if not self.max_abs <= limit:
            return f"reaches {self.max_abs:.4g}; the FP16 maximum is {HALF_MAX:.0f}"
        if not ignore_tiny and self.max_abs < _HARMLESS_MAX and self.tiny_share > _MAX_TINY_SHARE:
            return (
                f"has {self.tiny_share:.0%} of its non-zero values below 2^-14, where FP16 loses precision (from "
                f"{self.min_nonzero:.2g} to {self.max_abs:.2g})"
            )
        return None
