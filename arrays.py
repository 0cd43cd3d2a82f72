"""Array types that all layers share, and the checks on maps that the CRF and the runtime share."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ShapeError

FloatArray: TypeAlias = NDArray[np.float32]
Float64Array: TypeAlias = NDArray[np.float64]
#: [H, W] class ids of `label_type`.
Labels: TypeAlias = NDArray[np.unsignedinteger[Any]]

#: Labels have 16 bits at most.
MAX_CLASSES: Final = 65536
#: Of these they have 8.
MAX_BYTE_CLASSES: Final = 256


def label_type(classes: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Type of the labels of so many classes: bytes of up to 256, else 16 bits."""
    return np.dtype(np.uint8 if classes <= MAX_BYTE_CLASSES else np.uint16)


def as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    """Take what a caller has as an array, without a copy where it is one.

    Raises:
        ShapeError: it is none, such as rows of different lengths or a tensor with gradients, or some of it is masked.
    """
    try:
        array = np.asarray(values)
    except Exception as exc:  # what `__array__` of another library raises
        actual = type(values).__name__
        raise ShapeError(
            f"{name} must be an array; got {actual}, which NumPy cannot read: {exc}", expected="an array", actual=actual
        ) from exc
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        expected, actual = "values everywhere", f"{np.count_nonzero(np.ma.getmaskarray(values))} masked ones"
        raise ShapeError(f"{name} must have {expected}; got {actual}", expected=expected, actual=actual)
    return array


def class_maps(values: ArrayLike, name: str) -> NDArray[np.floating]:
    """Validate maps [C, H, W] with 1 to 65536 classes and at least one pixel; an array is not copied.

    Raises:
        ShapeError: the number of axes is wrong, there are no elements or too many classes, or the dtype is not floating
            point.
    """
    array = as_array(values, name)
    expected = f"floating-point [C, H, W] with 1 to {MAX_CLASSES} classes"
    actual = f"{array.dtype} {list(array.shape)}"
    problem = ""
    if not np.issubdtype(array.dtype, np.floating):
        problem = "have the wrong dtype"
    elif array.ndim == 4 and array.shape[0] == 1:
        problem = "have a batch axis: pass one image, maps[0]"
    elif array.ndim != 3 or array.size == 0:
        problem = "have the wrong shape"
    elif array.shape[0] > MAX_CLASSES:
        problem = "have too many classes for 16-bit labels"
    if problem:
        raise ShapeError(f"{name} {problem}: expected {expected}, got {actual}", expected=expected, actual=actual)
    return array


def not_finite(values: NDArray[np.float32], name: str) -> ShapeError:
    """Error for maps [C, H, W] with NaN or infinity, which names the first one."""
    class_index, row, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
    value = values[class_index, row, column]
    return ShapeError(
        f"{name} must be finite, got {value} at class {class_index}, row {row}, column {column}; "
        "check what computed them (overflow in half precision is a common cause)",
        expected="finite values",
        actual=f"{value} at [{class_index}, {row}, {column}]",
    )
