"""Validation of the arguments that pydensecrf accepts."""

from __future__ import annotations

from contextlib import suppress
from numbers import Number
from typing import Final, SupportsInt, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._native import all_finite
from ...errors import CRFError, ShapeError

Matrix: TypeAlias = NDArray[np.float32]

#: Stands for an infinite energy: exp(−_CERTAIN) is 0 after any pairwise message, and differences of it stay finite.
_CERTAIN: Final = 1e30


def float_array(values: object, name: str) -> Matrix:
    """Convert `values` of any shape to C-contiguous float32, without a copy if possible.

    Raises:
        ShapeError: `values` are not numbers, or rows differ in length.
    """
    if isinstance(values, (str, bytes, bytearray)) or values is None:
        raise ShapeError(f"{name} must be an array of numbers, got {type(values).__name__}", expected="numbers")
    try:
        return np.asarray(values, dtype=np.float32, order="C")
    except (TypeError, ValueError) as exc:
        raise ShapeError(f"{name} must be an array of numbers: {exc}", expected="numbers") from exc


def integer(value: SupportsInt, name: str) -> int:
    """Convert a count as pydensecrf does: any number, without its fraction.

    Raises:
        CRFError: `value` is not a number.
    """
    try:
        if not isinstance(value, (str, bytes)):
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise CRFError(f"{name} must be a whole number, got {value!r}")


def finite_matrix(values: ArrayLike, name: str) -> Matrix:
    """Validate `values` as a finite C-contiguous float32 matrix [rows, columns]."""
    return _finite(_rows(values, name), name)


def _rows(values: ArrayLike, name: str) -> Matrix:
    matrix = float_array(values, name)
    if matrix.ndim != 2:
        raise wrong_size(name, "a matrix", matrix)
    return matrix


def _finite(matrix: Matrix, name: str) -> Matrix:
    if not all_finite(matrix):
        row, column = (int(i) for i in np.argwhere(~np.isfinite(matrix))[0])
        raise ShapeError(
            f"{name} must be finite, got {matrix[row, column]} at [{row}, {column}]",
            expected="finite values",
            actual=f"{matrix[row, column]} at [{row}, {column}]",
        )
    return matrix


def unary_energies(values: ArrayLike) -> Matrix:
    """Validate unary energies [labels, variables]; infinity excludes a label, as −log 0 in `utils.softmax_to_unary`.

    Raises:
        ShapeError: `values` are not a matrix, hold NaN or −inf, or exclude every label of a variable.
    """
    energy = _rows(values, "unary energies")
    if all_finite(energy):
        return energy
    excluded = np.isposinf(energy)
    _finite(np.where(excluded, np.float32(0), energy), "unary energies")
    if len(energy) and (impossible := np.flatnonzero(excluded.all(axis=0))).size:
        raise ShapeError(
            f"unary energies must leave at least one label possible: all of variable {impossible[0]} are infinite",
            expected="a finite energy per variable",
        )
    return np.where(excluded, np.float32(_CERTAIN), energy)


def wrong_size(name: str, expected: str, got: NDArray[np.generic]) -> ShapeError:
    """Error for an array of the wrong shape."""
    actual = str(list(got.shape))
    return ShapeError(f"{name} has the wrong size: expected {expected}, got {actual}", expected=expected, actual=actual)


def sigmas(value: object, name: str, count: int) -> tuple[float, ...]:
    """First `count` of the standard deviations, or one number for all; pydensecrf ignores further ones."""
    sigmas: list[float] = []
    with suppress(TypeError, ValueError):
        # A string is not a sequence of numbers, although its characters may be digits.
        sigmas = np.array([] if isinstance(value, str) else value, dtype=np.float64).ravel().tolist()
    if isinstance(value, Number):
        sigmas *= count
    if len(sigmas) < count:
        raise CRFError(f"{name} must be a number or {count} of them, got {value!r}")
    sigmas = sigmas[:count]
    if not all(0 < sigma < float("inf") for sigma in sigmas):
        raise CRFError(f"{name} is a standard deviation and must be positive and finite, got {value}")
    return tuple(sigmas)
