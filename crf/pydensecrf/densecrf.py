"""The classes and constants of `pydensecrf.densecrf`, on the native core.

Float64, non-contiguous and read-only arrays are converted where pydensecrf refuses them. NaN, wrong sizes and reused
unaries raise where it computes nonsense or crashes.
"""
# ruff: noqa: N802, N803 - the names are pydensecrf's

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._native import Filter, SteppedMeanField, all_finite
from ...errors import CRFError, ShapeError

Matrix = NDArray[np.float32]


class KernelType(IntEnum):
    """How pydensecrf learns kernel parameters; inference is the same for all."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """On which side of the filter values are divided by its response to ones."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL: Final = KernelType.CONST_KERNEL
DIAG_KERNEL: Final = KernelType.DIAG_KERNEL
FULL_KERNEL: Final = KernelType.FULL_KERNEL
NO_NORMALIZATION: Final = NormalizationType.NO_NORMALIZATION
NORMALIZE_BEFORE: Final = NormalizationType.NORMALIZE_BEFORE
NORMALIZE_AFTER: Final = NormalizationType.NORMALIZE_AFTER
NORMALIZE_SYMMETRIC: Final = NormalizationType.NORMALIZE_SYMMETRIC

_NATIVE_NORMALIZATION: Final[dict[NormalizationType, Literal["none", "before", "after", "symmetric"]]] = {
    NO_NORMALIZATION: "none",
    NORMALIZE_BEFORE: "before",
    NORMALIZE_AFTER: "after",
    NORMALIZE_SYMMETRIC: "symmetric",
}


class Unary:
    """Unary energies of one CRF; made by `ConstUnary` or `LogisticUnary`."""

    def __init__(self, energy: Matrix) -> None:
        self._energy: Matrix | None = energy

    def take(self) -> Matrix:
        """Hand the energies [labels, variables] over; a CRF calls this.

        Raises:
            CRFError: another CRF has them already.
        """
        if self._energy is None:
            raise CRFError("this unary is in use by another CRF already; make a new one for each setUnary call")
        energy, self._energy = self._energy, None
        return energy


class ConstUnary(Unary):
    """Given energies.

    Args:
        u: [labels, variables].
    """

    def __init__(self, u: ArrayLike) -> None:
        super().__init__(_matrix(u, "unary energies"))


class LogisticUnary(Unary):
    """Energies L·f of logistic regression.

    Args:
        L: weights [labels, features].
        f: features [features, variables].
    """

    def __init__(self, L: ArrayLike, f: ArrayLike) -> None:
        weights, features = _matrix(L, "logistic weights"), _matrix(f, "logistic features")
        if weights.shape[1] != features.shape[0]:
            raise ShapeError(
                f"logistic weights {weights.shape} and features {features.shape} do not multiply: expected "
                "[labels, features] and [features, variables]",
                expected="[labels, features] and [features, variables]",
                actual=f"{weights.shape} and {features.shape}",
            )
        super().__init__(weights @ features)


class DenseCRF:
    """A fully connected CRF over variables with arbitrary features (Krähenbühl & Koltun 2011).

    An instance may be shared by threads, which then take turns.

    Args:
        nvar: variables (pixels).
        nlabels: labels of each.

    Raises:
        CRFError: there are no variables or no labels.
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        if nvar < 1 or nlabels < 1:
            raise CRFError(f"a CRF needs at least one variable and one label, got {nvar} and {nlabels}")
        self._nvar = int(nvar)
        self._nlabels = int(nlabels)
        self._field = SteppedMeanField(self._nvar, self._nlabels)
        self._has_unary = False
        self._lock = threading.Lock()
        self._field.set_unary(np.zeros((self._nlabels, self._nvar), np.float32))

    def setUnary(self, u: Unary) -> None:
        """Take over the energies of `u`.

        Raises:
            ShapeError: their size is not [labels, variables].
            CRFError: `u` was given to a CRF before.
        """
        self._set_energy(u.take())

    def setUnaryEnergy(self, u: ArrayLike, f: ArrayLike | None = None) -> None:
        """Set the energies `u` [labels, variables], or u·f with `u` [labels, features] and `f` [features, variables].

        Raises:
            ShapeError: sizes or values do not fit.
        """
        self.setUnary(ConstUnary(u) if f is None else LogisticUnary(u, f))

    def addPairwiseEnergy(
        self,
        features: ArrayLike,
        compat: ArrayLike,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel over `features` [dimensions, variables], in units of standard deviations.

        Args:
            features: one column a variable.
            compat: a number (Potts weight), a vector (diagonal, used as given) or a matrix (symmetrised); negative
                entries of the last two attract.
            kernel: a KernelType; makes no difference to inference.
            normalization: a NormalizationType.

        Raises:
            ShapeError: sizes or values do not fit.
            CRFError: features are too large for lattice coordinates.
        """
        columns = _matrix(features, "features")
        if columns.shape[1] != self._nvar:
            raise _wrong_size("features", f"[dimensions, {self._nvar}]", columns)
        new_filter = Filter()
        new_filter.build_from_features(columns, _normalization(kernel, normalization))
        self._add(new_filter, compat)

    def inference(self, niter: int) -> Matrix:
        """Marginals [labels, variables] after `niter` mean-field iterations."""
        if niter < 0:
            raise CRFError(f"the number of iterations must be 0 or more, got {niter}")
        with self._lock:
            self._field.start()
            self._field.run(niter)
            return self._field.marginals()

    def startInference(self) -> tuple[Matrix, Matrix, Matrix]:
        """Marginals to iterate on with `stepInference`, and two arrays that it ignores.

        As in pydensecrf, the marginals are zeros when no unary was set.
        """
        with self._lock:
            if self._has_unary:
                self._field.start()
                marginals = self._field.marginals()
            else:
                marginals = np.zeros((self._nlabels, self._nvar), np.float32)
        return marginals, np.zeros_like(marginals), np.zeros_like(marginals)

    def stepInference(self, Q: Matrix, tmp1: Matrix, tmp2: Matrix) -> None:  # noqa: ARG002 - pydensecrf's signature
        """One mean-field iteration on `Q` [labels, variables], in place.

        Raises:
            ShapeError: `Q` belongs to a CRF of another size, is not writeable float32, or is not finite.
        """
        if np.asarray(Q) is not Q or Q.dtype != np.float32 or not Q.flags.writeable:
            raise ShapeError("Q must be the writeable float32 array that startInference() returned")
        with self._lock:
            self._load(Q)
            self._field.run(1)
            Q[...] = self._field.marginals()

    def klDivergence(self, Q: ArrayLike) -> float:
        """KL divergence of `Q` [labels, variables] from the CRF's distribution, up to a constant.

        Raises:
            ShapeError: `Q` belongs to a CRF of another size or is not finite.
        """
        with self._lock:
            self._load(Q)
            return self._field.kl_divergence()

    def _set_energy(self, energy: Matrix) -> None:
        if energy.shape != (self._nlabels, self._nvar):
            raise _wrong_size("unary energies", f"[{self._nlabels}, {self._nvar}]", energy)
        with self._lock:
            self._field.set_unary(energy)
            self._has_unary = True

    def _load(self, Q: ArrayLike) -> None:
        marginals = _matrix(Q, "Q")
        if marginals.shape != (self._nlabels, self._nvar):
            raise _wrong_size("Q", f"[{self._nlabels}, {self._nvar}], of this CRF", marginals)
        self._field.set_marginals(marginals)

    def _add(self, new_filter: Filter, compat: ArrayLike) -> None:
        compatibility = self._compatibility(compat)
        with self._lock:
            self._field.add_term(new_filter, compatibility)

    def _compatibility(self, compat: ArrayLike) -> Matrix:
        values = np.asarray(compat, dtype=np.float32)
        labels = self._nlabels
        if values.shape not in ((), (labels,), (labels, labels)):
            raise _wrong_size("compatibility", f"a number, [{labels}] or [{labels}, {labels}]", values)
        if not np.isfinite(values).all():
            raise ShapeError("the compatibility must be finite", expected="finite values")
        if values.ndim == 0:
            return np.full(labels, -values, np.float32)
        return values if values.ndim == 1 else np.ascontiguousarray((values + values.T) / 2)


class DenseCRF2D(DenseCRF):
    """A fully connected CRF over the pixels of an image, numbered row by row.

    Args:
        w: width in pixels.
        h: height in pixels.
        nlabels: labels of each pixel.

    Raises:
        CRFError: a size is not positive.
    """

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        if w < 1 or h < 1:
            raise CRFError(f"an image needs at least one pixel, got width {w} and height {h}")
        super().__init__(w * h, nlabels)
        self._width = int(w)
        self._height = int(h)

    def addPairwiseGaussian(
        self,
        sxy: float | Sequence[float],
        compat: ArrayLike,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the smoothness kernel, over (x, y).

        Args:
            sxy: standard deviation in pixels, or one each for x and y.
            compat: as in `addPairwiseEnergy`.
            kernel: as in `addPairwiseEnergy`.
            normalization: as in `addPairwiseEnergy`.

        Raises:
            ShapeError: sizes do not fit.
            CRFError: a standard deviation is not positive, or too small for the image.
        """
        sigma_x, sigma_y = _sigmas(sxy, "sxy", 2)
        new_filter = Filter()
        new_filter.build_gaussian(self._height, self._width, (sigma_x, sigma_y), _normalization(kernel, normalization))
        self._add(new_filter, compat)

    def addPairwiseBilateral(
        self,
        sxy: float | Sequence[float],
        srgb: float | Sequence[float],
        rgbim: ArrayLike,
        compat: ArrayLike,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the appearance kernel, over (x, y, r, g, b).

        Args:
            sxy: standard deviation in pixels, or one each for x and y.
            srgb: standard deviation in units of 0…255, or one each channel.
            rgbim: image [h, w, 3] uint8.
            compat: as in `addPairwiseEnergy`.
            kernel: as in `addPairwiseEnergy`.
            normalization: as in `addPairwiseEnergy`.

        Raises:
            ShapeError: the image has another size or dtype.
            CRFError: a standard deviation is not positive, or too small for the image.
        """
        image = np.asarray(rgbim)
        if image.shape != (self._height, self._width, 3) or image.dtype != np.uint8:
            hint = ""
            if image.shape[:2] == (self._width, self._height):
                hint = "; width and height are swapped: DenseCRF2D takes the width first"
            raise ShapeError(
                f"rgbim must be uint8 [{self._height}, {self._width}, 3], got {image.dtype} {list(image.shape)}{hint}",
                expected=f"uint8 [{self._height}, {self._width}, 3]",
                actual=f"{image.dtype} {list(image.shape)}",
            )
        sigma_x, sigma_y = _sigmas(sxy, "sxy", 2)
        sigma_r, sigma_g, sigma_b = _sigmas(srgb, "srgb", 3)
        new_filter = Filter()
        new_filter.build_bilateral(
            np.ascontiguousarray(image),
            (sigma_x, sigma_y),
            (sigma_r, sigma_g, sigma_b),
            _normalization(kernel, normalization),
        )
        self._add(new_filter, compat)


def _matrix(values: ArrayLike, name: str) -> Matrix:
    """`values` as a finite C-contiguous float32 matrix."""
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    if np.ndim(values) != 2:
        raise _wrong_size(name, "a matrix", np.asarray(values))
    if not all_finite(matrix):
        row, column = (int(i) for i in np.argwhere(~np.isfinite(matrix))[0])
        raise ShapeError(
            f"{name} must be finite, got {matrix[row, column]} at [{row}, {column}]",
            expected="finite values",
            actual=f"{matrix[row, column]} at [{row}, {column}]",
        )
    return matrix


def _wrong_size(name: str, expected: str, got: NDArray[np.generic]) -> ShapeError:
    actual = str(list(got.shape))
    return ShapeError(f"{name} has the wrong size: expected {expected}, got {actual}", expected=expected, actual=actual)


def _normalization(kernel: int, normalization: int) -> Literal["none", "before", "after", "symmetric"]:
    try:
        KernelType(kernel)
        return _NATIVE_NORMALIZATION[NormalizationType(normalization)]
    except ValueError as exc:
        raise CRFError(f"kernel and normalization must be members of KernelType and NormalizationType: {exc}") from exc


def _sigmas(value: float | Sequence[float], name: str, count: int) -> tuple[float, ...]:
    sigmas = (float(value),) * count if isinstance(value, (int, float, np.number)) else tuple(map(float, value))
    if len(sigmas) != count:
        raise CRFError(f"{name} must be a number or {count} of them, got {len(sigmas)}")
    if not all(0 < sigma < float("inf") for sigma in sigmas):
        raise CRFError(f"{name} is a standard deviation and must be positive and finite, got {value}")
    return sigmas
