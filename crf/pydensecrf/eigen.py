"""Matrices and vectors of `pydensecrf.eigen`, as NumPy arrays."""
# ruff: noqa: N802 - the names are pydensecrf's

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...errors import ShapeError
from .arguments import Matrix, float_array


class MatrixXf(np.ndarray[tuple[int, int], np.dtype[np.float32]]):
    """Matrix [rows, columns] float32, as a CRF returns it. Created without data it is empty, whatever the arguments."""

    def __new__(cls, *_: object) -> MatrixXf:  # noqa: PYI034 - Self needs Python 3.11
        """Create an empty matrix."""
        return np.empty((0, 0), np.float32).view(cls)


class VectorXf(np.ndarray[tuple[int], np.dtype[np.float32]]):
    """Vector [entries] float32. Created without data it is empty, whatever the arguments."""

    def __new__(cls, *_: object) -> VectorXf:  # noqa: PYI034
        """Create an empty vector."""
        return np.empty(0, np.float32).view(cls)


def matrixXf(arr: ArrayLike) -> MatrixXf:
    """Copy `arr` [rows, columns] into a matrix.

    Raises:
        ShapeError: `arr` is not an array of numbers with two axes.
    """
    return _copied(arr, 2).view(MatrixXf)


def vectorXf(arr: ArrayLike) -> VectorXf:
    """Copy `arr` [entries] into a vector.

    Raises:
        ShapeError: `arr` is not an array of numbers with one axis.
    """
    return _copied(arr, 1).view(VectorXf)


def _copied(arr: ArrayLike, axes: int) -> Matrix:
    array = float_array(arr, "arr")
    if array.ndim != axes:
        raise ShapeError(
            f"arr must have {axes} axes, got {array.ndim}: shape {list(array.shape)}",
            expected=f"{axes} axes",
            actual=f"{array.ndim} axes",
        )
    copy: Matrix = array.copy()
    return copy
