"""Preprocessing of an image into the network's input, as the manifest says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._native import Geometry, PixelScaling, SizePolicy, fit_size, normalize_image, place_image, resize_image
from .._native import plan_geometry as native_plan_geometry
from ..manifest import InputSpec, Size

__all__ = ["Geometry", "fit_size", "native_policy", "pixel_scaling", "place_image", "plan_geometry", "prepare_image"]


def native_policy(inputs: InputSpec) -> SizePolicy:
    """Sizes that the network takes, for whoever plans."""
    policy = inputs.size
    return SizePolicy(policy.min, policy.opt, policy.max, policy.multiple, policy.offset)


def plan_geometry(image_size: Size, inputs: InputSpec) -> Geometry:
    """Sizes for one image; the input may exceed `inputs.size.max`, and is tiled then."""
    return native_plan_geometry(image_size, native_policy(inputs), inputs.resize)


def prepare_image(
    image: NDArray[np.uint8], input_size: Size, inputs: InputSpec, *, threads: int = 0
) -> NDArray[np.float32]:
    """[H, W, 3] uint8 RGB → [3, h, w] float32: resized if the policy says so, normalised, padded to `input_size`.

    Raises:
        ShapeError: the image is larger than `input_size`, and is not to be resized.
    """
    size, origin = place_image((image.shape[0], image.shape[1]), input_size, inputs.resize)
    if image.shape[:2] != size:
        # Pillow's bilinear filter widens when it shrinks (antialiasing), as in torchvision's Resize on PIL images.
        image = resize_image(image, size, threads)
    return normalize_image(image, pixel_scaling(inputs), input_size, origin, threads)


def pixel_scaling(inputs: InputSpec) -> PixelScaling:
    """Mean and standard deviation in units of 0 to 255, and what belongs to them."""
    scale = np.float32(inputs.scale)
    mean, std = np.asarray(inputs.mean, np.float32) / scale, np.asarray(inputs.std, np.float32) / scale
    return PixelScaling(mean, std, inputs.color_order == "BGR", np.asarray(inputs.pad_value, np.uint8))
