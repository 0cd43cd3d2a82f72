"""Letterboxes by their definition, in NumPy and double precision: an oracle that shares no code with the runtime."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from PIL import Image

from atrous.manifest import Size


def placed(image: Size, size: Size) -> tuple[Size, Size]:
    """(height, width) of an image in an input, and (top, left) of its corner."""
    scale = min(Fraction(size[0], image[0]), Fraction(size[1], image[1]))
    height, width = (max(1, int(length * scale + Fraction(1, 2))) for length in image)
    return (height, width), ((size[0] - height) // 2, (size[1] - width) // 2)


def padded(image: np.ndarray, size: Size, pad_value: tuple[int, int, int]) -> np.ndarray:
    """An image [H, W, 3] uint8 as Pillow resizes it and pastes it on a canvas of the input's size."""
    (height, width), (top, left) = placed(image.shape[:2], size)
    canvas = Image.new("RGB", size[::-1], pad_value)
    canvas.paste(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return np.asarray(canvas)


def cells_of_image(shape: tuple[int, int, int], image: Size, size: Size, *, align_corners: bool) -> tuple[slice, slice]:
    """Rows and columns of the coarse logits `shape` that are nearest to any pixel of the image."""
    covered, origin = placed(image, size)
    rows, columns = (
        _cells(shape[1 + axis], size[axis], origin[axis], covered[axis], align_corners=align_corners) for axis in (0, 1)
    )
    return rows, columns


def _cells(cells: int, length: int, begin: int, covered: int, *, align_corners: bool) -> slice:
    pixels = np.arange(begin, begin + covered)
    if align_corners:
        nearest = np.floor(pixels * (cells - 1) / max(length - 1, 1) + 0.5)
    else:
        nearest = np.floor((pixels + 0.5) * cells / length)
    return slice(int(nearest.min()), int(nearest.max()) + 1)


def letterboxed(logits: np.ndarray, image: Size, size: Size, *, align_corners: bool) -> np.ndarray:
    """Logits [C, h, w] of an input → [C, H, W] of the image: cropped to its cells, and linear between them."""
    covered, origin = placed(image, size)
    cells = cells_of_image(logits.shape, image, size, align_corners=align_corners)
    maps = logits[(slice(None), *cells)].astype(np.float64)
    for axis in (0, 1):
        count, length, pixels = logits.shape[1 + axis], size[axis], np.arange(image[axis])
        if align_corners:
            steps = (covered[axis] - 1) / max(image[axis] - 1, 1)
            at = (origin[axis] + pixels * steps) * (count - 1) / max(length - 1, 1)
        else:
            at = (origin[axis] + (pixels + 0.5) * covered[axis] / image[axis]) * count / length - 0.5
        at = np.clip(at - cells[axis].start, 0, maps.shape[1 + axis] - 1)
        low = np.floor(at).astype(int)
        high, weight = np.minimum(low + 1, maps.shape[1 + axis] - 1), at - low
        weight = weight[:, None] if axis == 0 else weight
        maps = np.take(maps, low, 1 + axis) * (1 - weight) + np.take(maps, high, 1 + axis) * weight
    return maps
