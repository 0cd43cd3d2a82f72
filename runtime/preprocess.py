"""From a picture to the network's input, exactly as the manifest says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .._native import normalize_image
from ..errors import ShapeError
from ..manifest import InputSpec, Size


@dataclass(frozen=True)
class Geometry:
    """Where the logits of one image lie.

    Attributes:
        image_size: of the picture, and of the labels.
        input_size: of the network's input.
        full_size: the size in picture pixels that the logits cover; larger than `image_size` where the input was
            padded at the bottom and right.
    """

    image_size: Size
    input_size: Size
    full_size: Size


def plan_geometry(image_size: Size, inputs: InputSpec) -> Geometry:
    """Sizes for one picture; the input may exceed `inputs.size.max`, and is tiled then."""
    if inputs.resize == "stretch":
        return Geometry(image_size, inputs.size.opt, image_size)
    policy = inputs.size
    height, width = (
        fit_size(max(image_size[axis], policy.min[axis]), policy.multiple, policy.offset) for axis in (0, 1)
    )
    return Geometry(image_size, (height, width), (height, width))


def fit_size(length: int, multiple: int, offset: int) -> int:
    """The smallest k · multiple + offset that is at least `length`."""
    return -(-(length - offset) // multiple) * multiple + offset


def prepare_image(
    image: NDArray[np.uint8], input_size: Size, inputs: InputSpec, *, threads: int = 0
) -> NDArray[np.float32]:
    """[H, W, 3] uint8 RGB → [3, h, w] float32: resized if the policy says so, normalised, padded to `input_size`.

    Raises:
        ShapeError: the image is larger than `input_size`.
    """
    if inputs.resize == "stretch" and image.shape[:2] != input_size:
        # Pillow's bilinear filter widens when it shrinks (antialiasing), as in torchvision's Resize on PIL images.
        resized = Image.fromarray(image).resize((input_size[1], input_size[0]), Image.Resampling.BILINEAR)
        image = np.asarray(resized)
    if image.shape[0] > input_size[0] or image.shape[1] > input_size[1]:
        raise ShapeError(
            f"an image of {image.shape[:2]} does not fit into an input of {input_size}",
            expected=f"at most {input_size}",
            actual=str(image.shape[:2]),
        )
    mean, std = normalization_of_bytes(inputs)
    return normalize_image(
        image,
        mean,
        std,
        inputs.color_order == "BGR",
        input_size[0],
        input_size[1],
        np.asarray(inputs.pad_value, np.uint8),
        threads,
    )


def normalization_of_bytes(inputs: InputSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation [3] by channel of the network's input, in units of 0 to 255."""
    scale = np.float32(inputs.scale)
    return np.asarray(inputs.mean, np.float32) / scale, np.asarray(inputs.std, np.float32) / scale
