"""Inputs to compare networks on: synthetic images of the sizes that a graph takes, or a user's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...arrays import FloatArray
from ...bands import Bands
from ...manifest import InputSpec, Size
from ...runtime.band_images import Pixels, load_pixels
from ...runtime.image import ImageSource
from ...runtime.preprocess import fit_size, plan_geometry, prepare_image

_SEED: Final = 1606_00915


def probe_inputs(inputs: InputSpec) -> list[FloatArray]:
    """Prepared synthetic images that exercise the sizes of a graph.

    A range of sizes: three of them (as far as it has three), the smallest and the optimal among them, and a batch of
    two. One size: three images of it, since the graph takes nothing else.
    """
    generator = np.random.default_rng(_SEED)
    policy = inputs.size
    if policy.is_fixed:
        return [_probe(generator, [policy.opt], inputs) for _ in range(3)]
    middle = tuple(
        min(high, fit_size((low + mid) // 2 + policy.multiple, policy.multiple, policy.offset))
        for low, mid, high in zip(policy.min, policy.opt, policy.max, strict=True)
    )
    shapes = [policy.min, policy.opt, (middle[0], policy.min[1]), (policy.min[0], middle[1]), policy.max]
    distinct = list(dict.fromkeys(shapes))[:3]
    batches = [*([shape] for shape in distinct), [distinct[-1]] * 2]
    return [_probe(generator, sizes, inputs) for sizes in batches]


def photo_inputs(images: Sequence[ImageSource], inputs: InputSpec) -> Iterator[FloatArray]:
    """Read and prepare images of a user, one at a time; what exceeds the maximum is cropped to it."""
    for image in images:
        picture = load_pixels(image, inputs.bands)
        if inputs.resize == "none":
            picture = picture[: inputs.size.max[0], : inputs.size.max[1]]
        geometry = plan_geometry((picture.shape[0], picture.shape[1]), inputs)
        yield prepare_image(picture, geometry.input_size, inputs)[None]


def _probe(generator: np.random.Generator, sizes: Sequence[Size], inputs: InputSpec) -> FloatArray:
    return np.stack([prepare_image(synthetic_photo(generator, size, inputs.bands), size, inputs) for size in sizes])


def synthetic_photo(generator: np.random.Generator, size: Size, bands: Bands | None = None) -> Pixels:
    """Smooth shading, a few flat rectangles with hard edges, and a little noise: [H, W, 3] uint8.

    Of bands, [H, W, B] of their type, over the range of each.
    """
    height, width = size
    channels = 3 if bands is None else len(bands.names)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phase = generator.uniform(0, 2 * np.pi, (channels, 2))
    waves = [np.sin(3 * rows + down) + np.cos(4 * columns + across) for down, across in phase]
    photo = 128 + 50 * np.stack(waves, axis=2)
    for _ in range(12):
        top, left = int(generator.integers(height)), int(generator.integers(width))
        bottom, right = top + height // 4 + 1, left + width // 4 + 1
        photo[top:bottom, left:right] = generator.uniform(0, 255, channels)
    photo += generator.normal(0, 6, photo.shape)
    return _in_ranges(photo.clip(0, 255), bands)


def random_pixels(generator: np.random.Generator, size: Size, bands: Bands | None = None) -> Pixels:
    """Noise of all values: [H, W, 3] uint8, or [H, W, B] over the range of each band."""
    if bands is None:
        return generator.integers(0, 256, (*size, 3), np.uint8)
    return _in_ranges(generator.uniform(0, 255, (*size, len(bands.names))), bands)


def _in_ranges(levels: NDArray[np.float64], bands: Bands | None) -> Pixels:
    """Levels of 0 to 255 as values of each band's range."""
    if bands is None:
        return levels.astype(np.uint8)
    low, high = np.array(bands.ranges).T
    values: Pixels = (low + levels / 255 * (high - low)).astype(bands.dtype)
    return values
