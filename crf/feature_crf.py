"""Fully connected CRF over any points and features: volumes, images of many bands, point clouds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._native import MeanField
from ..arguments import check_arguments, check_arguments_besides, describe
from ..arrays import MAX_CLASSES, Labels
from ..errors import ArgumentError, CRFError, ShapeError
from .compatibility import checked_compatibility, potts
from .filtering import build_lattice, check_options, check_points, finite_rows, scaled_features
from .memory import check_memory
from .params import MAX_ITERATIONS, Normalization, finite_number


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A Gaussian kernel over feature vectors: weight · exp(−|f_i − f_j|² / 2), with features over their sigmas.

    Args:
        features: [F, ...] numbers, F features for each point, up to 2048. Their order matters to the lattice, a little:
            `DenseCRF` has (x, y, r, g, b).
        sigmas: standard deviation of all features, or one for each.
        weight: w of the kernel; positive lets similar points agree.
        normalization: side on which values are divided by the kernel's response to ones, as in `CudaDenseCRF`.

    Raises:
        ShapeError: features are not finite numbers [F, ...].
        CRFError: a standard deviation is not positive, or an option is invalid.
    """

    features: ArrayLike
    sigmas: float | Sequence[float] = 1.0
    weight: float = 1.0
    normalization: Normalization = "symmetric"
    _scaled: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        check_options(_hashable(self.normalization), 0)
        object.__setattr__(self, "_scaled", scaled_features(self.features, self.sigmas))

    @classmethod
    @check_arguments
    def of_positions(
        cls, size: Sequence[int], *, sigma: float, spacing: float | Sequence[float] = 1.0, weight: float = 1.0
    ) -> Kernel:
        """Smoothness kernel of an image or a volume: exp(−|Δposition|² / 2σ²).

        Args:
            size: lengths of the axes, such as (H, W) or (D, H, W).
            sigma: standard deviation in the unit of `spacing`; in pixels where that is 1.
            spacing: distance of neighbours along all axes, or along each, such as (2.5, 0.7, 0.7) mm.
            weight: w of the kernel.

        Raises:
            ShapeError: there are no points.
            CRFError: a spacing or the standard deviation is not positive.
        """
        return cls(_positions(size, spacing), sigma, weight)

    @classmethod
    @check_arguments_besides("image", "sigma_values")
    def of_image(
        cls,
        image: ArrayLike,
        *,
        sigma: float,
        sigma_values: float | Sequence[float],
        spacing: float | Sequence[float] = 1.0,
        weight: float = 1.0,
    ) -> Kernel:
        """Appearance kernel of an image or a volume: exp(−|Δposition|² / 2σ² − |Δvalue|² / 2σ_v²).

        Args:
            image: [B, ...] numbers, bands first, such as [3, H, W] or [1, D, H, W].
            sigma: standard deviation of positions, as in `of_positions`.
            sigma_values: standard deviation of all bands, or one for each, in the unit of `image`.
            spacing: distance of neighbours, as in `of_positions`.
            weight: w of the kernel.

        Raises:
            ShapeError: the image is not finite numbers [B, ...].
            CRFError: a spacing or a standard deviation is not positive.
        """
        bands = finite_rows(image, "the image")
        positions = _positions(bands.shape[1:], spacing)
        widths = np.broadcast_to(_numbers(sigma_values, "sigma_values", len(bands)), len(bands))
        sigmas = [sigma] * len(positions) + widths.tolist()
        return cls(np.concatenate([positions, bands]), sigmas, weight)

    @property
    def points(self) -> tuple[int, ...]:
        """Shape of the points."""
        return self._scaled.shape[1:]


class FeatureCRF:
    """Mean-field inference in a dense CRF over any points and kernels (Krähenbühl & Koltun 2011).

    `DenseCRF` is the special case of an RGB image, and of two kernels whose bits this class gives for the same features
    in the same order. The lattices are built once; calls with other probabilities of the same points use them again. An
    instance is thread-safe, but serializes calls.

    Args:
        kernels: one or more, all of the same points. They are added up in this order.
        iterations: mean-field updates; 0 gives softmax(−unary).
        threads: CPU threads; 0 uses all cores. Results are bit-identical for any number.
        compatibility: [C] on the diagonal or [C, C], multiplied by the weight of each kernel; negative values attract.
            A matrix counts as ½(m + mᵀ). Potts, −1 on the diagonal, by default.

    Raises:
        ArgumentError: an argument has the wrong type.
        ShapeError: kernels are of different points.
        CRFError: there are no kernels, a number is out of range, or a standard deviation is too small for its feature.
    """

    @check_arguments_besides("compatibility", "kernels")
    def __init__(
        self,
        kernels: Sequence[Kernel],
        *,
        iterations: int = 10,
        threads: int = 0,
        compatibility: ArrayLike | None = None,
    ) -> None:
        self._kernels = _checked_kernels(kernels)
        if not 0 <= iterations <= MAX_ITERATIONS:
            raise CRFError(f"iterations must be 0 to {MAX_ITERATIONS}, got {iterations}")
        self.iterations, self.threads = iterations, threads
        check_options("none", threads)
        self.points = self._kernels[0].points
        self._compatibility = None if compatibility is None else checked_compatibility(compatibility)
        for kernel in self._kernels:
            check_points(kernel._scaled, "features", self.points)  # noqa: SLF001 - of this module
        self._corners = [len(kernel._scaled) + 1 for kernel in self._kernels]  # noqa: SLF001
        check_memory(1, self.points, self._corners)
        self._filters = [
            build_lattice(kernel._scaled, kernel.normalization, threads)  # noqa: SLF001
            for kernel in self._kernels
        ]
        self._field: MeanField | None = None
        self._classes = 0
        self._lock = threading.Lock()

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels."""
        return self._kernels

    @property
    def vertices(self) -> tuple[int, ...]:
        """Number of vertices of each kernel's lattice; time and memory grow with it."""
        return tuple(each.vertices for each in self._filters)

    def __call__(self, probabilities: ArrayLike) -> NDArray[np.float32]:
        """Refine class probabilities.

        Args:
            probabilities: [C, ...] floating point in [0, 1], of the kernels' points; clipped to [1e-5, 1] before the
                logarithm.

        Returns:
            Marginals in the shape of `probabilities`, float32; they sum to 1 over the classes.

        Raises:
            ShapeError: shapes, dtypes or values are invalid.
            CRFError: there is not enough memory, or the compatibility has another number of classes.
        """
        with self._lock:
            field = self._infer(probabilities)
            return field.marginals().reshape(-1, *self.points)

    def labels(self, probabilities: ArrayLike) -> Labels:
        """Most probable class of each point after refinement; ties go to the lowest class.

        Arguments and errors are those of `__call__`; the result is uint8, or uint16 of more than 256 classes.
        """
        with self._lock:
            return self._infer(probabilities).labels().reshape(self.points)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as kernels and options; lattices are built again."""
        return _make_again, (self._kernels, self.iterations, self.threads, self._compatibility)

    def _infer(self, probabilities: ArrayLike) -> MeanField:
        maps = finite_rows(probabilities, "probabilities")
        check_points(maps, "probabilities", self.points)
        if maps.min() < 0 or maps.max() > 1 + 1e-3:
            actual = f"{maps.min():g} to {maps.max():g}"
            raise ShapeError(
                f"probabilities must lie in [0, 1], got {actual}; apply softmax to logits first",
                expected="values in [0, 1]",
                actual=actual,
            )
        field = self._field
        if field is None or self._classes != len(maps):
            field = self._allocate(len(maps))
        field.set_unary_from_probabilities(maps.reshape(len(maps), -1))
        field.infer(self.iterations)
        return field

    def _allocate(self, classes: int) -> MeanField:
        if classes > MAX_CLASSES:
            raise ShapeError(f"labels have 16 bits, so there can be {MAX_CLASSES} classes; got {classes}")
        if self._compatibility is not None and len(self._compatibility) != classes:
            raise CRFError(f"the compatibility is for {len(self._compatibility)} classes; probabilities have {classes}")
        check_memory(classes, self.points, self._corners)
        self._field = None  # frees the old buffers before allocating new ones
        field = MeanField(self._filters[0].pixels, classes, self.threads)
        for kernel, each in zip(self._kernels, self._filters, strict=True):
            weight = float(kernel.weight)
            term = potts(classes, weight) if self._compatibility is None else np.float32(weight) * self._compatibility
            field.add_term(each, term)
        self._field, self._classes = field, classes
        return field


def _make_again(
    kernels: tuple[Kernel, ...], iterations: int, threads: int, compatibility: NDArray[np.float32] | None
) -> FeatureCRF:
    return FeatureCRF(kernels, iterations=iterations, threads=threads, compatibility=compatibility)


def _checked_kernels(kernels: object) -> tuple[Kernel, ...]:
    if not isinstance(kernels, (list, tuple)) or not all(isinstance(each, Kernel) for each in kernels):
        raise ArgumentError(f"kernels must be a list of Kernel; got {describe(kernels)}", argument="kernels")
    if not kernels:
        raise CRFError("a dense CRF needs at least one kernel; got none")
    return tuple(kernels)


def _positions(size: Sequence[int], spacing: float | Sequence[float]) -> NDArray[np.float32]:
    """Positions [axes, *size] float32, the last axis first: (x, y) of an image, (x, y, z) of a volume."""
    if len(size) == 0 or min(size) < 1:
        raise ShapeError(f"an image has axes of 1 or more, got {tuple(size)}", expected="positive lengths")
    check_memory(1, size, [len(size) + 1])
    steps = np.broadcast_to(_numbers(spacing, "spacing", len(size)), len(size))
    if not (steps > 0).all():
        raise CRFError(f"spacing is a distance and must be positive, got {spacing}")
    axes = (np.arange(length, dtype=np.float32) * step for length, step in zip(size, steps, strict=True))
    return np.stack(np.meshgrid(*axes, indexing="ij")[::-1])


def _numbers(values: object, name: str, count: int) -> NDArray[np.float32]:
    """A finite number or `count` of them; raises `CRFError`."""
    try:
        numbers = np.asarray(values, dtype=np.float32)
    except Exception as exc:  # what `__array__` of another library raises
        raise CRFError(f"{name} must be a number or {count} of them, got {describe(values)}") from exc
    if numbers.shape not in ((), (1,), (count,)) or not np.isfinite(numbers).all():
        raise CRFError(f"{name} must be a finite number or {count} of them, got {describe(values)}")
    return numbers


def _check_weight(weight: object) -> None:
    if finite_number(weight) is None:
        raise CRFError(f"the weight of a kernel must be a finite number, got {describe(weight)}")


def _hashable(value: object) -> str:
    return value if isinstance(value, str) else describe(value)
