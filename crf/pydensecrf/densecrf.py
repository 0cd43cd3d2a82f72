"""The classes and constants of `pydensecrf.densecrf`, on the native core.

Float64, non-contiguous and read-only arrays are converted, where pydensecrf rejects them. NaN, wrong sizes and reused
unaries raise, where pydensecrf computes nonsense or crashes. docs/migrating-from-pydensecrf.md lists every difference.
"""
# ruff: noqa: N802, N803 - the names are pydensecrf's

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import IntEnum
from numbers import Number
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from ..._native import Filter, SteppedMeanField
from ...errors import CRFError, ShapeError
from ..kept_filters import KEPT_FILTERS, FilterOptions
from ..params import Normalization
from . import eigen
from .arguments import Matrix, finite_matrix, float_array, integer, sigmas, unary_energies, wrong_size


class KernelType(IntEnum):
    """Parametrization of kernels for learning in pydensecrf; inference is the same for all."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """Side of the filter on which values are divided by its response to ones."""

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

_NATIVE_NORMALIZATION: Final[dict[NormalizationType, Normalization]] = {
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
        """Hand the energies [labels, variables] over to a CRF, which calls this.

        Raises:
            CRFError: another CRF already owns them.
        """
        if self._energy is None:
            raise CRFError("this unary already belongs to another CRF; create a new one for each setUnary call")
        energy, self._energy = self._energy, None
        return energy


class ConstUnary(Unary):
    """Given energies.

    Args:
        u: [labels, variables].
    """

    def __init__(self, u: ArrayLike) -> None:
        super().__init__(unary_energies(u))


class LogisticUnary(Unary):
    """Energies L·f of logistic regression.

    Args:
        L: weights [labels, features].
        f: features [features, variables].
    """

    def __init__(self, L: ArrayLike, f: ArrayLike) -> None:
        weights, features = finite_matrix(L, "logistic weights"), finite_matrix(f, "logistic features")
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

    An instance is thread-safe, but serializes calls.

    Args:
        nvar: variables (pixels). This, and every other count here, may be a float, whose fraction is dropped.
        nlabels: labels of each.
        unused: further arguments are ignored, as pydensecrf ignores them.

    Raises:
        CRFError: there are no variables or no labels.
    """

    def __init__(self, nvar: float, nlabels: float, *unused: object, **unused_by_name: object) -> None:  # noqa: ARG002
        self._nvar, self._nlabels = integer(nvar, "nvar"), integer(nlabels, "nlabels")
        if self._nvar < 1 or self._nlabels < 1:
            raise CRFError(f"a CRF needs at least one variable and one label, got {self._nvar} and {self._nlabels}")
        self._field = SteppedMeanField(self._nvar, self._nlabels)
        self._has_unary = self._is_unary_known = False
        self._lock = threading.Lock()

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
        compat: ArrayLike | Number,
        kernel: float = DIAG_KERNEL,
        normalization: float = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel over `features` [dimensions, variables], in units of standard deviations.

        Args:
            features: one column per variable; up to 2048 rows.
            compat: a number (Potts weight), a vector (diagonal, used as given) or a matrix (symmetrised); negative
                entries of the last two attract.
            kernel: a KernelType; makes no difference to inference.
            normalization: a NormalizationType.

        Raises:
            ShapeError: sizes or values do not fit.
            CRFError: features are too large for lattice coordinates.
        """
        columns = finite_matrix(features, "features")
        if columns.shape[1] != self._nvar:
            raise wrong_size("features", f"[dimensions, {self._nvar}]", columns)
        new_filter = Filter()
        new_filter.build_from_features(columns, _normalization(kernel, normalization))
        self._add(new_filter, compat)

    def inference(self, niter: float) -> eigen.MatrixXf:
        """Marginals [labels, variables] after `niter` mean-field iterations.

        Raises:
            CRFError: `niter` is negative.
        """
        iterations = integer(niter, "niter")
        if iterations < 0:
            raise CRFError(f"the number of iterations must be 0 or more, got {niter}")
        with self._lock:
            self._require_unary()
            self._field.start()
            self._field.run(iterations)
            return self._field.marginals().view(eigen.MatrixXf)

    def startInference(self) -> tuple[eigen.MatrixXf, eigen.MatrixXf, eigen.MatrixXf]:
        """Marginals to iterate on with `stepInference`, and two empty matrices that it ignores.

        As in pydensecrf, the marginals are zeros when no unary was set.
        """
        with self._lock:
            if self._has_unary:
                self._field.start()
                marginals = self._field.marginals()
            else:
                marginals = np.zeros((self._nlabels, self._nvar), np.float32)
        return marginals.view(eigen.MatrixXf), eigen.MatrixXf(), eigen.MatrixXf()

    def stepInference(self, Q: object, tmp1: object, tmp2: object) -> None:  # noqa: ARG002 - pydensecrf's signature
        """One mean-field iteration on `Q` [labels, variables], in place.

        Raises:
            ShapeError: `Q` belongs to a CRF of another size, is not writeable float32, or is not finite.
        """
        if not isinstance(Q, np.ndarray) or Q.dtype != np.float32 or not Q.flags.writeable:
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
            raise wrong_size("unary energies", f"[{self._nlabels}, {self._nvar}]", energy)
        with self._lock:
            self._field.set_unary(energy)
            self._has_unary = self._is_unary_known = True

    def _require_unary(self) -> None:
        """Let a CRF without a unary have energies of zero."""
        if not self._is_unary_known:
            self._field.set_unary(np.zeros((self._nlabels, self._nvar), np.float32))
            self._is_unary_known = True

    def _load(self, Q: ArrayLike) -> None:
        marginals = finite_matrix(Q, "Q")
        if marginals.shape != (self._nlabels, self._nvar):
            raise wrong_size("Q", f"[{self._nlabels}, {self._nvar}], of this CRF", marginals)
        self._require_unary()
        self._field.set_marginals(marginals)

    def _add(self, new_filter: Filter, compat: ArrayLike | Number) -> None:
        compatibility = self._compatibility(compat)
        with self._lock:
            self._field.add_term(new_filter, compatibility)

    def _compatibility(self, compat: ArrayLike | Number) -> Matrix:
        values = float_array(compat, "the compatibility")
        labels = self._nlabels
        if values.shape not in ((), (labels,), (labels, labels)):
            raise wrong_size("compatibility", f"a number, [{labels}] or [{labels}, {labels}]", values)
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
        unused: further arguments are ignored, as pydensecrf ignores them.

    Raises:
        CRFError: a size is not positive.
    """

    def __init__(
        self,
        w: float,
        h: float,
        nlabels: float,
        *unused: object,  # noqa: ARG002 - pydensecrf's signature
        **unused_by_name: object,  # noqa: ARG002
    ) -> None:
        self._width, self._height = integer(w, "w"), integer(h, "h")
        if self._width < 1 or self._height < 1:
            raise CRFError(f"an image needs at least one pixel, got width {w} and height {h}")
        super().__init__(self._width * self._height, nlabels)

    def addPairwiseGaussian(
        self,
        sxy: float | Sequence[float],
        compat: ArrayLike | Number,
        kernel: float = DIAG_KERNEL,
        normalization: float = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the smoothness kernel, over (x, y).

        Args:
            sxy: standard deviation in pixels, or one each for x and y.
            compat: [labels] or [labels, labels], as in `addPairwiseEnergy`.
            kernel: as in `addPairwiseEnergy`.
            normalization: as in `addPairwiseEnergy`.

        Raises:
            ShapeError: sizes do not fit.
            CRFError: a standard deviation is not positive, or too small for the image.
        """
        sigma_x, sigma_y = sigmas(sxy, "sxy", 2)
        options = FilterOptions(
            size=(self._height, self._width),
            sigma_xy_px=(sigma_x, sigma_y),
            normalization=_normalization(kernel, normalization),
        )
        self._add(KEPT_FILTERS.gaussian(options), compat)

    def addPairwiseBilateral(
        self,
        sxy: float | Sequence[float],
        srgb: float | Sequence[float],
        rgbim: ArrayLike,
        compat: ArrayLike | Number,
        kernel: float = DIAG_KERNEL,
        normalization: float = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the appearance kernel, over (x, y, r, g, b).

        Args:
            sxy: standard deviation in pixels, or one each for x and y.
            srgb: standard deviation in units of 0…255, or one each channel.
            rgbim: image [h, w, 3] uint8.
            compat: [labels] or [labels, labels], as in `addPairwiseEnergy`.
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
        sigma_x, sigma_y = sigmas(sxy, "sxy", 2)
        sigma_r, sigma_g, sigma_b = sigmas(srgb, "srgb", 3)
        options = FilterOptions(
            size=(self._height, self._width),
            sigma_xy_px=(sigma_x, sigma_y),
            sigma_rgb=(sigma_r, sigma_g, sigma_b),
            normalization=_normalization(kernel, normalization),
        )
        self._add(KEPT_FILTERS.bilateral(np.ascontiguousarray(image), options), compat)


def _normalization(kernel: float, normalization: float) -> Normalization:
    try:
        KernelType(integer(kernel, "kernel"))
        return _NATIVE_NORMALIZATION[NormalizationType(integer(normalization, "normalization"))]
    except ValueError as exc:
        raise CRFError(f"kernel and normalization must be members of KernelType and NormalizationType: {exc}") from exc
