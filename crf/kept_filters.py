"""Lattices that stay with the process, for images and sizes that come again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .._native import Filter, release_pages
from .params import CRFParams, Normalization

#: A Gaussian lattice and the bilateral ones of three images, or both of an image at two scales.
_MOST_FILTERS: Final = 4
_MOST_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """All that a lattice depends on besides the image.

    Attributes:
        size: height and width in pixels.
        sigma_xy_px: standard deviations along x and y.
        normalization: side of the filter on which values are divided.
        takes_fractions: values on the lattice are 16-bit fractions.
        sigma_rgb: standard deviations of the colours; None for a Gaussian over positions.
    """

    size: tuple[int, int]
    sigma_xy_px: tuple[float, float]
    normalization: Normalization = "symmetric"
    takes_fractions: bool = False
    sigma_rgb: tuple[float, float, float] | None = None

    @classmethod
    def of_gaussian(cls, params: CRFParams, size: tuple[int, int], *, takes_fractions: bool = False) -> FilterOptions:
        """Options of the smoothness kernel on images of this size."""
        sigma_xy_px = params.gaussian_sigma_xy_px
        return cls(size, (sigma_xy_px, sigma_xy_px), takes_fractions=takes_fractions)

    @classmethod
    def of_bilateral(cls, params: CRFParams, size: tuple[int, int], *, takes_fractions: bool = False) -> FilterOptions:
        """Options of the appearance kernel on images of this size."""
        sigma_xy_px, sigma_rgb = params.bilateral_sigma_xy_px, params.bilateral_sigma_rgb
        return cls(
            size,
            (sigma_xy_px, sigma_xy_px),
            takes_fractions=takes_fractions,
            sigma_rgb=(sigma_rgb, sigma_rgb, sigma_rgb),
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    options: FilterOptions
    image: NDArray[np.uint8] | None
    filter: Filter

    @property
    def nbytes(self) -> int:
        return self.filter.nbytes + (0 if self.image is None else self.image.nbytes)


class KeptFilters:
    """The filters that were used last: no more than a few, and no more than fit a number of bytes.

    Thread-safe. Filters are not built again once they are here, so that any number of fields may share one.

    Args:
        max_bytes: the most that they may take together; None for as much as they need.
    """

    def __init__(self, *, max_bytes: int | None = _MOST_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: list[_Kept] = []  # the one that was used last at the end

    def gaussian(self, options: FilterOptions, *, threads: int = 0) -> Filter:
        """The smoothness kernel; raises CRFError if a standard deviation is too small for the size."""

        def build(new: Filter) -> None:
            new.build_gaussian(*options.size, options.sigma_xy_px, options.normalization, threads)

        return self._get(options, None, build)

    def bilateral(self, image: NDArray[np.uint8], options: FilterOptions, *, threads: int = 0) -> Filter:
        """The appearance kernel of `image` [H, W, 3], C-contiguous; raises CRFError as `gaussian` does."""
        assert options.sigma_rgb is not None  # noqa: S101 - callers make the options for this
        sigma_rgb = options.sigma_rgb

        def build(new: Filter) -> None:
            new.build_bilateral(image, options.sigma_xy_px, sigma_rgb, options.normalization, threads)

        return self._get(options, image, build)

    def clear(self) -> None:
        """Forget all filters; those in use stay with whoever uses them."""
        with self._lock:
            self._kept = []

    def _get(self, options: FilterOptions, image: NDArray[np.uint8] | None, build: Callable[[Filter], None]) -> Filter:
        with self._lock:
            for place, each in enumerate(self._kept):
                # All bytes: images that differ have different lattices.
                if each.options == options and (image is None or np.array_equal(each.image, image)):  # type: ignore[arg-type]
                    self._kept.append(self._kept.pop(place))
                    return each.filter
            self._kept = self._kept[1 - _MOST_FILTERS :]  # before the new one takes memory
        made = Filter(takes_fractions=options.takes_fractions)
        build(made)
        # A copy, which the caller cannot change.
        new = _Kept(options, None if image is None else image.copy(), made)
        with self._lock:
            self._kept = [*self._kept[1 - _MOST_FILTERS :], new]
            while self._max_bytes is not None and sum(each.nbytes for each in self._kept) > self._max_bytes:
                del self._kept[0]
        return made


KEPT_FILTERS: Final = KeptFilters()


def release_memory() -> int:
    """Give the system the memory that dense CRFs on the CPU keep for the next call.

    Buffers that are given back, and the lattices of the last images, stay with the process, since fresh memory costs
    time. Memory of a `DenseCRF`, of results and of arrays that still exist is not affected. May be called at any time,
    from any thread.

    Returns:
        The number of bytes that were given back.
    """
    KEPT_FILTERS.clear()
    return release_pages()
