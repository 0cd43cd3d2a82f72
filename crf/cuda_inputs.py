"""Checks on what `CudaDenseCRF` is given: arrays on the host and in GPU memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import MAX_CLASSES
from ..errors import CRFError, ShapeError

MAX_IMAGES = 64
"""Of a batch: what the keys of lattice points leave room for."""


@runtime_checkable
class SupportsCudaArray(Protocol):
    """An array in GPU memory, as PyTorch, CuPy and PyCUDA have them."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 2 or 3 of the interface."""
        ...


AnyArray: TypeAlias = ArrayLike | SupportsCudaArray


@dataclass(frozen=True, slots=True)
class Input:
    """An array on the host, or where one lies on the GPU.

    Attributes:
        shape: of the array.
        dtype: of its elements.
        host: the array, if it is there.
        address: else the device pointer.
        must_wait: whether somebody may still be writing it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    host: NDArray[Any] | None
    address: int = 0
    must_wait: bool = False

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def checked_probabilities(values: AnyArray) -> Input:
    """Probabilities [C, H, W] or [B, C, H, W]; on the GPU, float32.

    Raises:
        ShapeError: another shape or dtype, no elements, too many classes or images, or not contiguous on the GPU.
    """
    array = _found(values, "probabilities", np.float32)
    shape = array.shape
    expected = f"floating-point [C, H, W] or [B, C, H, W], up to {MAX_CLASSES} classes and {MAX_IMAGES} images"
    actual = f"{array.dtype} {list(shape)}"
    problem = ""
    if not np.issubdtype(array.dtype, np.floating):
        problem = "have the wrong dtype"
    elif len(shape) not in (3, 4) or 0 in shape:
        problem = "have the wrong shape"
    elif shape[-3] > MAX_CLASSES:
        problem = "have too many classes for 8-bit labels"
    elif len(shape) == 4 and shape[0] > MAX_IMAGES:
        problem = "have too many images for one batch"
    if problem:
        raise ShapeError(
            f"probabilities {problem}: expected {expected}, got {actual}", expected=expected, actual=actual
        )
    return array


def checked_image(values: AnyArray, maps_shape: tuple[int, ...]) -> Input:
    """The images [H, W, 3] or [B, H, W, 3] uint8 that belong to probabilities of `maps_shape`.

    Raises:
        ShapeError: another shape or dtype, or not contiguous on the GPU.
    """
    height, width = maps_shape[-2:]
    wanted = (*maps_shape[:-3], height, width, 3)
    array = _found(values, "the image", np.uint8)
    expected = f"uint8 RGB {list(wanted)}"
    actual = f"{array.dtype} {list(array.shape)}"
    problem = ""
    if len(array.shape) != len(wanted) or array.shape[-1] != 3:
        problem = "has the wrong shape; convert it to RGB"
    elif array.dtype != np.uint8:
        problem = "has the wrong dtype; the colour sigma is in units of 0…255"
    elif array.shape[:-3] != wanted[:-3]:
        problem = "is not a batch of as many as the probabilities"
    elif array.shape[-3:-1] == (width, height) != (height, width):
        problem = "has width and height swapped with respect to the probabilities"
    elif array.shape != wanted:
        problem = "differs in size from the probabilities"
    if problem:
        raise ShapeError(f"the image {problem}: expected {expected}, got {actual}", expected=expected, actual=actual)
    return array


def checked_compatibility(values: ArrayLike) -> NDArray[np.float32]:
    """A compatibility [C], or [C, C] made symmetric.

    Raises:
        CRFError: another shape, or values that are not finite.
    """
    array = np.array(values, dtype=np.float32)
    if array.size == 0 or array.ndim not in (1, 2) or array.shape != (array.shape[0],) * array.ndim:
        raise CRFError(f"a compatibility is a vector [C] or a square matrix [C, C], got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise CRFError("a compatibility must be finite")
    return array if array.ndim == 1 else (array + array.T) / 2


def _found(values: AnyArray, name: str, dtype: type[np.generic]) -> Input:
    """Where the array is; on the GPU, where nothing is converted, it must be C-contiguous and of `dtype`."""
    if not isinstance(values, SupportsCudaArray):
        host = np.asarray(values)
        return Input(host.shape, host.dtype, host)
    interface = values.__cuda_array_interface__
    shape = tuple(int(length) for length in interface["shape"])
    strides = interface.get("strides")
    item = np.dtype(dtype).itemsize
    contiguous = tuple(item * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    expected = f"{np.dtype(dtype)}, C-contiguous and without a mask"
    actual = f"{interface['typestr']} {list(shape)} with strides {strides}"
    if (
        np.dtype(interface["typestr"]) != dtype
        or interface.get("mask") is not None
        or (strides is not None and tuple(strides) != contiguous)
    ):
        raise ShapeError(f"{name} on the GPU must be {expected}, got {actual}", expected=expected, actual=actual)
    # Before version 3 the interface has no word on streams: somebody may still be writing.
    must_wait = interface["version"] < 3 or interface.get("stream") is not None
    return Input(shape, np.dtype(dtype), None, int(interface["data"][0]), must_wait)
