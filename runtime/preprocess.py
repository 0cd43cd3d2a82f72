"""Preprocessing of an image into the network's input, as the manifest says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._native import (
    BandColors,
    Geometry,
    PixelScaling,
    SizePolicy,
    color_bands,
    fit_size,
    normalize_image,
    place_image,
    resize_image,
)
from .._native import plan_geometry as native_plan_geometry
from ..bands import Bands
from ..manifest import InputSpec, Size

__all__ = [
    "Geometry",
    "color_image",
    "fit_size",
    "native_policy",
    "pixel_scaling",
    "place_image",
    "plan_geometry",
    "prepare_image",
]


def native_policy(inputs: InputSpec) -> SizePolicy:
    """Sizes that the network takes, for whoever plans."""
    policy = inputs.size
    return SizePolicy(policy.min, policy.opt, policy.max, policy.multiple, policy.offset)


def plan_geometry(image_size: Size, inputs: InputSpec) -> Geometry:
    """Sizes for one image; the input may exceed `inputs.size.max`, and is tiled then."""
    return native_plan_geometry(image_size, native_policy(inputs), inputs.resize)


def prepare_image(image: NDArray[Any], input_size: Size, inputs: InputSpec, *, threads: int = 0) -> NDArray[np.float32]:
    """[H, W, 3] uint8 RGB → [3, h, w] float32: resized if the policy says so, normalised, padded to `input_size`.

    Of other bands, [H, W, B] of their type → [B, h, w].

    Raises:
        ShapeError: the image is larger than `input_size`, and is not to be resized.
    """
    size, origin = place_image((image.shape[0], image.shape[1]), input_size, inputs.resize)
    if image.shape[:2] != size:
        # Pillow's bilinear filter widens when it shrinks (antialiasing), as in torchvision's Resize on PIL images.
        image = resize_image(image, size, threads)
    return normalize_image(image, pixel_scaling(inputs), input_size, origin, threads)


def pixel_scaling(inputs: InputSpec) -> PixelScaling:
    """Mean and standard deviation in units of the samples, of bytes 0 to 255, and what belongs to them."""
    scale = np.float32(inputs.scale)
    mean, std = np.asarray(inputs.mean, np.float32) / scale, np.asarray(inputs.std, np.float32) / scale
    sample = "uint8" if inputs.bands is None else inputs.bands.dtype
    return PixelScaling(mean, std, inputs.color_order == "BGR", np.asarray(inputs.pad_value, np.float32), sample)


def color_image(image: NDArray[Any], bands: Bands | None, *, weighted: bool = False) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB of an image [H, W, B]: the bands that make its picture, each scaled from its range.

    Args:
        image: of those bands; RGB in bytes where `bands` is None, which is what it is.
        bands: the network's.
        weighted: the colours that the CRF compares, which have their weights.
    """
    return image if bands is None else color_bands(image, band_colors(bands, weighted=weighted))


def band_colors(bands: Bands, *, weighted: bool = False) -> BandColors:
    """Scaling to 0–255 of the bands that make the picture: one band is grey, and without a third there is no blue."""
    chosen = bands.colors * 3 if len(bands.colors) == 1 else (*bands.colors, -1)[:3]
    weights = bands.crf_weights * 3 if len(bands.colors) == 1 else (*bands.crf_weights, 1.0)[:3]
    ranges = [bands.ranges[index] for index in chosen]
    factors = [255 / (high - low) for low, high in ranges]
    if weighted:
        factors = [factor * weight for factor, weight in zip(factors, weights, strict=True)]
    return BandColors(len(bands.names), bands.dtype, chosen, [low for low, _ in ranges], factors)
