"""Validation of the tensors that the functions of `atrous.crf.torch` take."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...arguments import describe
from ...errors import CRFError, DeviceError, ShapeError


def checked_maps(values: object, name: str) -> torch.Tensor:
    """Validate float32 maps [N, C, H, W] on the CPU, with at least one of each.

    Raises:
        ShapeError: `values` are no such tensor.
        DeviceError: it is not on the CPU.
    """
    return _checked_float32(values, name, "[N, C, H, W]", range(4, 5))


def checked_tensor(values: object, name: str) -> torch.Tensor:
    """Validate float32 rows [C, ...] on the CPU, with at least one point.

    Raises:
        ShapeError: `values` are no such tensor.
        DeviceError: it is not on the CPU.
    """
    return _checked_float32(values, name, "[rows, points…]", range(2, sys.maxsize))


def checked_images(values: object, maps: torch.Tensor) -> NDArray[np.uint8]:
    """Validate images [N, H, W, 3] uint8, a tensor or an array, for maps [N, C, H, W].

    Raises:
        ShapeError: `values` are no such images.
        DeviceError: they are not on the CPU.
    """
    count, _, height, width = maps.shape
    # A copy: torch takes neither read-only arrays nor those with negative strides.
    is_array = isinstance(values, np.ndarray) and values.dtype == np.uint8
    tensor = torch.from_numpy(np.array(values)) if is_array else values
    images = _on_cpu(tensor, "images")
    expected, actual = f"uint8 [{count}, {height}, {width}, 3]", _words(images)
    problem = ""
    if images.dtype != torch.uint8:
        problem = "; the colour sigma is in units of 0…255, so do not normalize them"
    elif list(images.shape) == [count, 3, height, width]:
        problem = "; channels go last: images.permute(0, 2, 3, 1)"
    elif list(images.shape) == [count, height, width, 3]:
        return images.detach().contiguous().numpy()
    raise ShapeError(f"images must be {expected}, got {actual}{problem}", expected=expected, actual=actual)


def check_finite(values: torch.Tensor | NDArray[Any], name: str) -> None:
    """Raise `CRFError` if a value is NaN or infinite: one would spread over the whole image."""
    finite = torch.isfinite(torch.as_tensor(values))
    if not finite.all():
        place = [int(index) for index in torch.nonzero(~finite)[0]]
        raise CRFError(
            f"{name} must be finite, got NaN or infinity at {place}; check the layers before and the learning rate "
            "(overflow in half precision is a common cause)"
        )


def _checked_float32(values: object, name: str, axes: str, ranks: range) -> torch.Tensor:
    tensor = _on_cpu(values, name)
    expected, actual = f"float32 {axes}", _words(tensor)
    hint = "; convert it with .float()" if tensor.is_floating_point() and tensor.dtype != torch.float32 else ""
    if tensor.dtype != torch.float32 or tensor.ndim not in ranks or tensor.numel() == 0:
        raise ShapeError(f"{name} must be {expected}, got {actual}{hint}", expected=expected, actual=actual)
    return tensor


def _on_cpu(values: object, name: str) -> torch.Tensor:
    if not isinstance(values, torch.Tensor):
        actual = describe(values)
        raise ShapeError(f"{name} must be a tensor, got {actual}", expected="a tensor", actual=actual)
    if values.device.type != "cpu" or values.layout != torch.strided:
        raise DeviceError(
            f"{name} must be a dense tensor on the CPU, where atrous.crf.torch computes; got {values.layout} on "
            f"{values.device}. Move it with {name}.cpu(), which gradients pass through"
        )
    return values


def _words(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
