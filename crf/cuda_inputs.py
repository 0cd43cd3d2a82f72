"""Validation of the inputs of `CudaDenseCRF`: arrays on the host and in GPU memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import describe
from ..arrays import MAX_BYTE_CLASSES, as_array
from ..errors import ShapeError

#: Maximum number of images in a batch: the keys of lattice points reserve 6 bits for it.
MAX_IMAGES = 64


@runtime_checkable
class SupportsCudaArray(Protocol):
    """Array in GPU memory, e.g. of PyTorch, CuPy or PyCUDA."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 2 or 3 of the interface."""
        ...


AnyArray: TypeAlias = ArrayLike | SupportsCudaArray


@dataclass(frozen=True, slots=True)
class Input:
    """Array on the host, or the address of one on the GPU.

    Attributes:
        shape: shape of the array.
        dtype: dtype of its elements.
        host: the array if it is on the host, else None.
        address: device pointer if it is on the GPU.
        must_wait: True if pending work may still write to it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    host: NDArray[Any] | None
    address: int = 0
    must_wait: bool = False

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def checked_probabilities(values: AnyArray) -> Input:
    """Validate probabilities [C, H, W] or [B, C, H, W]; float32 if they are on the GPU.

    Raises:
        ShapeError: the shape or dtype is wrong, there are no elements, or too many classes or images, or the array is
            on the GPU and not contiguous.
    """
    array = _found(values, "probabilities", np.float32)
    shape = array.shape
    expected = f"floating-point [C, H, W] or [B, C, H, W], up to {MAX_BYTE_CLASSES} classes and {MAX_IMAGES} images"
    actual = f"{array.dtype} {list(shape)}"
    problem = ""
    if not np.issubdtype(array.dtype, np.floating):
        problem = "have the wrong dtype"
    elif len(shape) not in (3, 4) or 0 in shape:
        problem = "have the wrong shape"
    elif shape[-3] > MAX_BYTE_CLASSES:
        problem = "have too many classes for 8-bit labels"
    elif len(shape) == 4 and shape[0] > MAX_IMAGES:
        problem = "have too many images for one batch"
    if problem:
        raise ShapeError(
            f"probabilities {problem}: expected {expected}, got {actual}", expected=expected, actual=actual
        )
    return array


def checked_image(values: AnyArray, maps_shape: tuple[int, ...]) -> Input:
    """Validate images [H, W, 3] or [B, H, W, 3] uint8 for probabilities of `maps_shape`.

    Raises:
        ShapeError: the shape or dtype is wrong, or the array is on the GPU and not contiguous.
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
        problem = "differs in batch size from the probabilities"
    elif array.shape[-3:-1] == (width, height) != (height, width):
        problem = "has width and height swapped with respect to the probabilities"
    elif array.shape != wanted:
        problem = "differs in size from the probabilities"
    if problem:
        raise ShapeError(f"the image {problem}: expected {expected}, got {actual}", expected=expected, actual=actual)
    return array


def _found(values: AnyArray, name: str, dtype: type[np.generic]) -> Input:
    """Locate an array; on the GPU it is not converted, so it must be C-contiguous and of `dtype`."""
    try:
        # Not isinstance(): since Python 3.12 it takes torch's tensors on the host for arrays on a GPU.
        interface = getattr(values, "__cuda_array_interface__", None)
    except Exception as exc:  # of a tensor with gradients, for example
        raise ShapeError(
            f"{name} on the GPU cannot be read: {exc}", expected="an array", actual=describe(values)
        ) from exc
    if interface is None:
        host = as_array(values, name)  # type: ignore[arg-type]  # not on the GPU
        return Input(host.shape, host.dtype, host)
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
    # Before version 3 the interface does not mention streams, so pending work may still write to the array.
    must_wait = interface["version"] < 3 or interface.get("stream") is not None
    return Input(shape, np.dtype(dtype), None, int(interface["data"][0]), must_wait)
