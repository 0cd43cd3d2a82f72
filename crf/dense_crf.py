"""Fully connected CRF on the CPU, which refines class probabilities."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._native import ClassSubset, Filter, FractionMeanField, MeanField, check_class_floor, likely_classes
from ..arguments import MAX_THREADS, check_arguments
from ..arrays import Labels, as_array, class_maps, not_finite
from ..errors import CRFError, ShapeError
from .compatibility import Compatibility, bilateral_term, gaussian_term
from .kept_filters import KEPT_FILTERS, FilterOptions, KeptFilters
from .memory import check_memory
from .params import MAX_ITERATIONS, CRFParams, Storage

#: Of a simplex of the smoothness kernel and of the appearance kernel: one more than features.
_CORNERS = (3, 6)

_Field: TypeAlias = MeanField | FractionMeanField


class DenseCRF:
    """Mean-field inference in a dense CRF with a bilateral and a Gaussian kernel (Krähenbühl & Koltun 2011).

    Buffers and the Gaussian lattice are reused by calls of the same size. An instance is thread-safe, but serializes
    calls; separate instances run in parallel.

    Args:
        params: weights and standard deviations of the kernels.
        iterations: mean-field updates; 0 gives softmax(−unary).
        threads: CPU threads; 0 uses all cores. Results are bit-identical for any number.
        storage: values on the lattice, and Q between updates, in single precision or as 16-bit fractions of 1.
            Fractions take a fifth less memory and, with AVX-512, a sixth to a fifth less time (two threads, 513×513, 21
            classes), but more time without AVX2. Up to 0.006 % of the labels differ, and marginals by up to 6.2e-3 (two
            photos at two sizes, P1–P3 of docs/crf.md). Arithmetic, unaries, norms and the result are in single
            precision.
        class_floor: classes whose probability is below this in every pixel take no part, which saves their share of
            the time, and have 1e-5 in the result; 0 to 0.01. 0 is exact; docs/crf.md bounds what more changes. Not
            with a `compatibility`.
        compatibility: factors of the weights for each class, and a cost for each pair of classes, as
            `atrous.crf.torch` learns them; None for the Potts model.

    Raises:
        ArgumentError: an argument has the wrong type.
        CRFError: `iterations` or `threads` is negative or excessive, `storage` is unknown, or `class_floor` is out of
            range, or used with a negative weight or a `compatibility`.
    """

    @check_arguments
    def __init__(
        self,
        params: CRFParams | None = None,
        *,
        iterations: int = 10,
        threads: int = 0,
        storage: Storage = "fp32",
        class_floor: float = 0.0,
        compatibility: Compatibility | None = None,
    ) -> None:
        for name, value, most in (("iterations", iterations, MAX_ITERATIONS), ("threads", threads, MAX_THREADS)):
            if value < 0:
                raise CRFError(f"{name} must be 0 or more, got {value}")
            if value > most:
                raise CRFError(f"{name} must be {most} or less, got {value}")
        self.iterations = int(iterations)
        self.threads = int(threads)
        if storage not in get_args(Storage):
            raise CRFError(f"storage must be one of {', '.join(get_args(Storage))}, got {storage!r}")
        self.params = params if params is not None else CRFParams.deeplab_v2_resnet()
        self.storage: Storage = storage
        self.class_floor = float(class_floor)
        check_class_floor(self.class_floor, self.params.gaussian_weight, self.params.bilateral_weight)
        if self.class_floor > 0 and compatibility is not None:
            raise CRFError(
                "class_floor needs the Potts compatibility; leave compatibility out, or set class_floor to 0"
            )
        self.compatibility = compatibility
        #: Lattices that calls share; those of the process, unless somebody gives others.
        self.filters: KeptFilters = KEPT_FILTERS
        self._subset: ClassSubset | None = None
        self._lock = threading.Lock()
        self._size: tuple[int, int, int] | None = None
        self._field: _Field | None = None
        self._unbuilt = Filter(takes_fractions=storage == "unorm16")

    def __call__(self, probabilities: ArrayLike, image: ArrayLike) -> NDArray[np.float32]:
        """Refine class probabilities.

        Args:
            probabilities: [C, H, W] floating point in [0, 1]; clipped to [1e-5, 1] before the logarithm.
            image: [H, W, 3] uint8 RGB.

        Returns:
            Marginals [C, H, W] float32; they sum to 1 over the classes.

        Raises:
            ShapeError: shapes, dtypes or values are invalid.
            CRFError: there is not enough memory for the image, or a sigma is too small for its size.
        """
        with self._lock:
            field, subset, size = self._infer(probabilities, image)
            return field.marginals(subset).reshape(subset.classes, *size)

    def labels(self, probabilities: ArrayLike, image: ArrayLike) -> Labels:
        """Most probable class of each pixel after refinement; ties go to the lowest class.

        Args:
            probabilities: [C, H, W] as in `__call__`.
            image: [H, W, 3] as in `__call__`.

        Returns:
            Labels [H, W] uint8, or uint16 of more than 256 classes.

        Raises:
            ShapeError: shapes, dtypes or values are invalid.
            CRFError: there is not enough memory for the image, or a sigma is too small for its size.
        """
        with self._lock:
            field, subset, size = self._infer(probabilities, image)
            return field.labels(subset).reshape(size)

    def labels_and_marginals(self, probabilities: ArrayLike, image: ArrayLike) -> tuple[Labels, NDArray[np.float32]]:
        """Labels [H, W] and marginals [C, H, W] float32 of one inference; raises as `__call__` does."""
        with self._lock:
            field, subset, size = self._infer(probabilities, image)
            return field.labels(subset).reshape(size), field.marginals(subset).reshape(subset.classes, *size)

    @property
    def classes_refined(self) -> list[int]:
        """Classes that took part in the last call, in ascending order: all of them where `class_floor` is 0.

        Rows of classes are padded, so up to four take part at the price of one, then up to 8, 16 and so on: the
        likeliest of those below the floor fill them up.
        """
        return [] if self._subset is None else self._subset.kept

    def __reduce__(self) -> tuple[Callable[[CRFParams], DenseCRF], tuple[CRFParams]]:
        """Pickle as parameters and options, without buffers."""
        make = partial(
            DenseCRF,
            iterations=self.iterations,
            threads=self.threads,
            storage=self.storage,
            class_floor=self.class_floor,
            compatibility=self.compatibility,
        )
        return make, (self.params,)

    def _infer(self, probabilities: ArrayLike, image: ArrayLike) -> tuple[_Field, ClassSubset, tuple[int, int]]:
        unchecked = class_maps(probabilities, "probabilities")
        classes, height, width = unchecked.shape
        if self.compatibility is not None and self.compatibility.classes != classes:
            raise ShapeError(
                f"the compatibility is for {self.compatibility.classes} classes; the probabilities have {classes}",
                expected=f"{self.compatibility.classes} classes",
                actual=f"{classes} classes",
            )
        check_memory(classes, (height, width), _CORNERS, storage=self.storage)
        pixels = _checked_image(image, height, width)
        maps = np.ascontiguousarray(unchecked, dtype=np.float32)
        low, high = maps.min(), maps.max()
        if np.isnan(low):
            raise not_finite(maps, "probabilities")
        if low < 0 or high > 1 + 1e-3:
            actual = f"{low:g} to {high:g}"
            raise ShapeError(
                f"probabilities must lie in [0, 1], got {actual}; apply softmax to logits first",
                expected="values in [0, 1]",
                actual=actual,
            )
        subset = self._subset = likely_classes(maps, self.class_floor, self.params.unary_temperature, self.threads)
        shape = len(subset.kept), height, width
        field = self._field if self._field is not None and self._size == shape else self._allocate(shape)
        if self.iterations > 0 and self.params.bilateral_weight != 0:
            self._set_image(field, pixels)
        field.set_unary_from_probabilities(maps, subset, self.params.unary_temperature)
        field.infer(self.iterations)
        return field, subset, (height, width)

    def _set_image(self, field: _Field, image: NDArray[np.uint8]) -> None:
        """Give the bilateral term, which is the last, the filter of `image` [H, W, 3]."""
        last = field.terms - 1
        field.replace_filter(last, self._unbuilt)  # frees the last image's, unless it is kept
        size = (image.shape[0], image.shape[1])
        options = FilterOptions.of_bilateral(self.params, size, takes_fractions=self.storage == "unorm16")
        field.replace_filter(last, self.filters.bilateral(image, options, threads=self.threads))

    def _allocate(self, shape: tuple[int, int, int]) -> _Field:
        """Allocate buffers for maps of `shape` [C, H, W], with a term for each kernel."""
        self._field = None  # frees the old buffers before allocating new ones
        classes, height, width = shape
        make_field = FractionMeanField if self.storage == "unorm16" else MeanField
        field = make_field(height * width, classes, self.threads)
        params = self.params
        if params.gaussian_weight != 0:
            fractions = self.storage == "unorm16"
            options = FilterOptions.of_gaussian(params, (height, width), takes_fractions=fractions)
            gaussian = self.filters.gaussian(options, threads=self.threads)
            field.add_term(gaussian, gaussian_term(self.compatibility, classes, params.gaussian_weight))
        if params.bilateral_weight != 0:
            field.add_term(self._unbuilt, bilateral_term(self.compatibility, classes, params.bilateral_weight))
        self._field, self._size = field, shape
        return field


def _checked_image(image: ArrayLike, height: int, width: int) -> NDArray[np.uint8]:
    """Validate an image and return it as C-contiguous [height, width, 3] uint8; raises ShapeError."""
    array = as_array(image, "the image")
    expected = f"uint8 RGB [{height}, {width}, 3]"
    actual = f"{array.dtype} {list(array.shape)}"
    problem = ""
    if array.ndim != 3 or array.shape[2] != 3:
        problem = "has the wrong shape; convert it to RGB"
    elif array.dtype != np.uint8:
        problem = "has the wrong dtype; the colour sigma is in units of 0…255"
    elif array.shape[:2] == (width, height) != (height, width):
        problem = "has width and height swapped with respect to the probabilities"
    elif array.shape[:2] != (height, width):
        problem = "differs in size from the probabilities"
    if problem:
        raise ShapeError(f"the image {problem}: expected {expected}, got {actual}", expected=expected, actual=actual)
    return np.ascontiguousarray(array)
