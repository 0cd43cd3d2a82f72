"""Interaction of classes in the pairwise potential, as it is learned and deployed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import check_arguments, check_fields, describe
from ..errors import CRFError

_Matrix = TypeVar("_Matrix", bound=Any)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatibility:
    """Weight of each class in each kernel, and cost of each pair of classes.

    With them the pairwise potential of two pixels with classes a and b is, for a kernel k of weight w_k in `CRFParams`,

        w_k · ½(f_k[a] + f_k[b]) · m[a, b] · exp(…).

    The mean of the two factors keeps it symmetric. Ones and −1 on the diagonal, the Potts model, leave `CRFParams` as
    it is. `atrous.crf.torch` learns them.

    Args:
        bilateral: f of the appearance kernel, a factor for each class.
        gaussian: f of the smoothness kernel, a factor for each class.
        matrix: m, rows of a matrix [C, C]; negative values attract. It counts as ½(m + mᵀ). None for −1 on the
            diagonal.

    Raises:
        ArgumentError: a value has the wrong type.
        CRFError: sizes differ, or a value is not finite.
    """

    bilateral: Sequence[float]
    gaussian: Sequence[float]
    matrix: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("bilateral", "gaussian"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        classes = len(self.bilateral)
        if self.matrix is None:
            potts = tuple(tuple(-float(row == column) for column in range(classes)) for row in range(classes))
            object.__setattr__(self, "matrix", potts)
        try:
            object.__setattr__(self, "matrix", tuple(tuple(float(value) for value in row) for row in self.rows))
        except (TypeError, ValueError, OverflowError) as exc:
            raise CRFError(f"matrix must be rows of numbers, got {describe(self.matrix)}") from exc
        if classes == 0 or len(self.gaussian) != classes or [len(row) for row in self.rows] != [classes] * classes:
            raise CRFError(
                "a compatibility has a factor for each class in bilateral and in gaussian, and a square matrix of as "
                f"many rows; got {classes} and {len(self.gaussian)} factors, and rows of "
                f"{sorted({len(row) for row in self.rows})} in a matrix of {len(self.rows)}"
            )
        values = [*self.bilateral, *self.gaussian, *(value for row in self.rows for value in row)]
        if not all(math.isfinite(value) for value in values):
            raise CRFError("a compatibility must be finite, got NaN or infinity")

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.bilateral)

    def to_dict(self) -> dict[str, Any]:
        """Values by name, for a bundle's manifest."""
        return {
            "bilateral": list(self.bilateral),
            "gaussian": list(self.gaussian),
            "matrix": [list(row) for row in self.rows],
        }

    @classmethod
    @check_arguments
    def from_dict(cls, values: Mapping[str, Any]) -> Compatibility:
        """Inverse of `to_dict`.

        Raises:
            CRFError: a value is missing, unknown or invalid.
        """
        names = {"bilateral", "gaussian", "matrix"}
        if set(values) != names:
            got = ", ".join(map(str, values)) or "nothing"
            raise CRFError(f"a compatibility has bilateral, gaussian and matrix; got {got}")
        return cls(**values)

    @property
    def rows(self) -> Sequence[Sequence[float]]:
        """The matrix m."""
        assert self.matrix is not None  # noqa: S101 - set when it was made
        return self.matrix


def gaussian_term(compatibility: Compatibility | None, classes: int, weight: float) -> NDArray[np.float32]:
    """Compatibility of a smoothness kernel of this weight: [C] float32 on the diagonal, or [C, C]."""
    return _term(compatibility, weight, compatibility.gaussian) if compatibility else potts(classes, weight)


def bilateral_term(compatibility: Compatibility | None, classes: int, weight: float) -> NDArray[np.float32]:
    """Compatibility of an appearance kernel of this weight: [C] float32 on the diagonal, or [C, C]."""
    return _term(compatibility, weight, compatibility.bilateral) if compatibility else potts(classes, weight)


def _term(compatibility: Compatibility, weight: float, factors: Sequence[float]) -> NDArray[np.float32]:
    matrix = np.array(compatibility.matrix, np.float32)
    return diagonal_if_possible(interaction(weight, np.array(factors, np.float32), matrix))


def potts(classes: int, weight: float) -> NDArray[np.float32]:
    """Potts compatibility [C] float32: agreeing labels are rewarded by `weight`."""
    return np.full(classes, -weight, dtype=np.float32)


def interaction(weight: float, factors: _Matrix, matrix: _Matrix) -> _Matrix:
    """μ[a, b] = w · ½(f[a] + f[b]) · ½(m + mᵀ)[a, b] of arrays or tensors, float32: the same bits of either."""
    product: _Matrix = weight * (0.5 * (factors[:, None] + factors[None, :])) * (0.5 * (matrix + matrix.T))
    return product


def diagonal_if_possible(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The diagonal [C] of a matrix [C, C] that has nothing else: inference is faster with it."""
    diagonal = np.ascontiguousarray(np.diagonal(matrix))
    return matrix if np.count_nonzero(matrix - np.diag(diagonal)) else diagonal


def checked_compatibility(values: ArrayLike) -> NDArray[np.float32]:
    """Validate a compatibility [C] or [C, C], and make a matrix symmetric.

    Raises:
        CRFError: the shape is wrong, or a value is not finite.
    """
    try:
        array = np.array(values, dtype=np.float32)
    except Exception as exc:  # what `__array__` of another library raises
        raise CRFError(f"compatibility must be numbers [C] or [C, C]; got {describe(values)}: {exc}") from exc
    if array.size == 0 or array.ndim not in (1, 2) or array.shape != (array.shape[0],) * array.ndim:
        raise CRFError(f"compatibility must be a vector [C] or a square matrix [C, C], got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise CRFError("compatibility must be finite")
    return array if array.ndim == 1 else (array + array.T) / 2
