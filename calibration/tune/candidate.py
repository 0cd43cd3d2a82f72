"""A dense CRF that the search tries, and how it stands against none."""

from __future__ import annotations

import itertools
from dataclasses import astuple, dataclass, replace
from typing import Any, Final

from ...crf import Compatibility, CRFParams, DenseCRF
from ...crf.stored import DEFAULT_ITERATIONS, stored_crf

#: Digits of a parameter: steps of the search are far larger, and shorter numbers are easier to read.
_DIGITS: Final = 3


@dataclass(frozen=True)
class Candidate:
    """A dense CRF: parameters, iterations, and what was learned of its classes, or None."""

    params: CRFParams
    iterations: int = DEFAULT_ITERATIONS
    compatibility: Compatibility | None = None

    @property
    def key(self) -> tuple[float, ...]:
        """All that its labels depend on, as numbers."""
        learned = self.compatibility
        of_classes = (*learned.bilateral, *learned.gaussian, *itertools.chain(*learned.rows)) if learned else ()
        return (*astuple(self.params), self.iterations, *of_classes)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Standard deviations, on which alone the lattices depend."""
        params = self.params
        return params.bilateral_sigma_xy_px, params.bilateral_sigma_rgb, params.gaussian_sigma_xy_px

    def scaled(self, **factors: float) -> Candidate:
        """Copy with these parameters multiplied."""
        values = {name: rounded(getattr(self.params, name) * factor) for name, factor in factors.items()}
        return replace(self, params=replace(self.params, **values))

    def crf(self, *, threads: int = 1) -> DenseCRF:
        """The dense CRF itself."""
        return DenseCRF(self.params, iterations=self.iterations, threads=threads, compatibility=self.compatibility)

    def stored(self) -> dict[str, Any]:
        """Its values by name, as a manifest stores them."""
        return stored_crf(self.params, self.iterations, self.compatibility)


@dataclass(frozen=True)
class Standing:
    """A candidate on some images, against no CRF.

    Attributes:
        candidate: None for no CRF.
        gain: points of the metric gained; NaN where nothing could be scored.
        harm: points of IoU that the class loses which loses most; negative where all gain.
        images: number of images.
    """

    candidate: Candidate | None
    gain: float
    harm: float
    images: int

    def merit(self, no_harm: float) -> tuple[float, float]:
        """Rank in the search, the larger the better: harm beyond the limit counts first, then the gain."""
        return -max(0.0, self.harm - no_harm), self.gain


def rounded(value: float) -> float:
    """A number to three digits."""
    return float(f"{value:.{_DIGITS}g}")
