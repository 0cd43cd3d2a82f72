"""Gaussian filtering over any features, on the permutohedral lattice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._native import Filter
from ..arguments import MAX_THREADS, check_arguments_besides
from ..arrays import as_array
from ..errors import CRFError, ShapeError
from .params import Normalization

#: Lattice points have as many coordinates, packed into 512 words.
MAX_FEATURES: Final = 2048
#: Added to norms, as in the mean field's filters.
_EPSILON: Final = np.float32(1e-20)


@check_arguments_besides("values", "features", "sigmas")
def permutohedral_filter(
    values: ArrayLike,
    features: ArrayLike,
    *,
    sigmas: float | Sequence[float] = 1.0,
    normalization: Normalization = "none",
    threads: int = 0,
) -> NDArray[np.float32]:
    """Filter values with a Gaussian over feature vectors: Σ_j exp(−|f_i − f_j|² / 2) · v_j, the point itself included.

    The permutohedral lattice (Adams, Baek & Davis 2010) approximates the sum in a time that is linear in points.

    Args:
        values: [C, ...] numbers, C values for each point; taken in single precision.
        features: [F, ...] numbers, F features for each point, up to 2048; the same points as `values`.
        sigmas: standard deviation of all features, or one for each.
        normalization: side on which values are divided by s, the filter's response to ones: `after` gives weighted
            means, `before` divides the values first, `symmetric` divides by √s on both sides, `none` leaves the sums.
        threads: CPU threads; 0 uses all cores. Results are bit-identical for any number.

    Returns:
        The filtered values, float32, in the shape of `values`.

    Raises:
        ArgumentError: an argument has the wrong type.
        ShapeError: arrays are not finite, or are of different points.
        CRFError: a standard deviation is not positive or too small for its feature, or an option is invalid.
    """
    rows = finite_rows(values, "values")
    columns = scaled_features(features, sigmas)
    check_points(columns, "features", rows.shape[1:])
    check_options(normalization, threads)
    lattice = build_lattice(columns, "symmetric" if normalization == "symmetric" else "none", threads)
    flat = rows.reshape(len(rows), -1)
    if normalization in ("before", "after"):
        norms = filter_norms(lattice, threads)
        if normalization == "before":
            return lattice.apply(flat / norms, threads=threads).reshape(rows.shape)
        return (lattice.apply(flat, threads=threads) / norms).reshape(rows.shape)
    return lattice.apply(flat, threads=threads).reshape(rows.shape)


def build_lattice(columns: NDArray[np.float32], normalization: Normalization, threads: int) -> Filter:
    """Build a filter over features [F, ...] that are divided by their standard deviations; raises `CRFError`."""
    lattice = Filter()
    lattice.build_from_features(columns.reshape(len(columns), -1), normalization, threads)
    return lattice


def filter_norms(lattice: Filter, threads: int) -> NDArray[np.float32]:
    """Response [N] of a filter that is not normalised to ones, never 0."""
    ones = np.ones((1, lattice.pixels), np.float32)
    norms: NDArray[np.float32] = lattice.apply(ones, threads=threads)[0] + _EPSILON
    return norms


def finite_rows(values: ArrayLike, name: str) -> NDArray[np.float32]:
    """Validate numbers [rows, ...] with at least one point, as C-contiguous float32.

    Raises:
        ShapeError: they are no numbers, there are none, or one is not finite.
    """
    array = as_array(values, name)
    is_real = np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    expected, actual = "numbers [rows, points…]", f"{array.dtype} {list(array.shape)}"
    if not is_real or array.ndim < 2 or array.size == 0:
        raise ShapeError(f"{name} must be {expected}, got {actual}", expected=expected, actual=actual)
    with np.errstate(over="ignore"):  # said below
        rows = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(rows).all():
        place = [int(index) for index in np.argwhere(~np.isfinite(rows))[0]]
        raise ShapeError(f"{name} must be finite, got {array[tuple(place)]} at {place}", expected="finite values")
    return rows


def scaled_features(features: ArrayLike, sigmas: float | Sequence[float]) -> NDArray[np.float32]:
    """Validate features [F, ...] and divide them by their standard deviations, in single precision.

    Raises:
        ShapeError: features are not finite, or there are too many.
        CRFError: a standard deviation is not positive and finite, or there is another number of them than of features.
    """
    columns = finite_rows(features, "features")
    if len(columns) > MAX_FEATURES:
        expected, actual = f"up to {MAX_FEATURES} features", f"{len(columns)}"
        raise ShapeError(f"a lattice takes {expected} of a point, got {actual}", expected=expected, actual=actual)
    try:
        with np.errstate(over="ignore"):  # said below
            widths = np.asarray(sigmas, dtype=np.float32)
    except Exception as exc:  # what `__array__` of another library raises
        raise CRFError(f"sigmas must be a number or one for each feature, got {type(sigmas).__name__}: {exc}") from exc
    if widths.ndim > 1 or widths.size not in (1, len(columns)):
        raise CRFError(
            f"sigmas must be a number or one for each of {len(columns)} features, got shape {list(widths.shape)}"
        )
    if not ((widths > 0) & np.isfinite(widths)).all():
        raise CRFError(f"sigmas are standard deviations and must be positive and finite, got {widths.tolist()}")
    with np.errstate(over="ignore"):  # the lattice says which coordinates are too large
        scaled: NDArray[np.float32] = columns / widths.reshape(-1, *[1] * (columns.ndim - 1))
    return scaled


def check_points(rows: NDArray[np.float32], name: str, points: Sequence[int]) -> None:
    """Raise `ShapeError` unless rows [rows, ...] are of these points."""
    if rows.shape[1:] != tuple(points):
        expected, actual = f"[{len(rows)}, {', '.join(map(str, points))}]", str(list(rows.shape))
        raise ShapeError(f"{name} must be of the same points: expected {expected}, got {actual}", expected=expected)


def check_options(normalization: str, threads: int) -> None:
    """Raise `CRFError` for an unknown normalization or a number of threads that cannot be."""
    if normalization not in get_args(Normalization):
        raise CRFError(f"normalization must be one of {', '.join(get_args(Normalization))}, got {normalization!r}")
    if not 0 <= threads <= MAX_THREADS:
        raise CRFError(f"threads must be 0 to {MAX_THREADS}, got {threads}")
