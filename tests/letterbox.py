"""The ways to fit images to an input by their definition, in NumPy and double precision: an oracle for the runtime.

It shares no code with it.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tiny_graphs import Conv, color_layers, save_graph
from tolerances import LETTERBOX_ABS, RESIZE_ORDER_LEVELS

from atrous.bundle import Bundle
from atrous.exporter.model_description import Preprocessing
from atrous.exporter.normalization import Normalization
from atrous.exporter.pack import pack
from atrous.exporter.sizes import DynamicSize
from atrous.manifest import ResizePolicy, Size

#: A network that answers every eighth pixel, in steps of 32 levels, so that probabilities say how clear a label is.
LEVELS = 32
#: Blue, which is class 2: padding that leaks into an image shows.
PADDING = (0, 0, 255)
INPUT = (64, 96)

Pixels = NDArray[np.uint8]


def placed(image: Size, size: Size, resize: ResizePolicy = "letterbox") -> tuple[Size, Size]:
    """(height, width) of an image in an input, and (top, left) of its corner."""
    if resize != "letterbox":
        return (size if resize == "stretch" else image), (0, 0)
    scale = min(Fraction(size[0], image[0]), Fraction(size[1], image[1]))
    height, width = (max(1, int(length * scale + Fraction(1, 2))) for length in image)
    return (height, width), ((size[0] - height) // 2, (size[1] - width) // 2)


def padded(
    image: np.ndarray, size: Size, pad_value: tuple[int, int, int], resize: ResizePolicy = "letterbox"
) -> np.ndarray:
    """An image [H, W, 3] uint8 as Pillow resizes it and pastes it on a canvas of the input's size."""
    (height, width), (top, left) = placed(image.shape[:2], size, resize)
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


def letterboxed(
    logits: np.ndarray, image: Size, size: Size, *, align_corners: bool, resize: ResizePolicy = "letterbox"
) -> np.ndarray:
    """Logits [C, h, w] of an input → [C, H, W] of the image: linear between cells, of a letterbox the image's alone."""
    covered, origin = placed(image, size, resize)
    cells = tuple(slice(0, count) for count in logits.shape[1:])
    if resize == "letterbox":
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


def make_colored(folder: Path, resize: ResizePolicy, size: Size | DynamicSize = INPUT) -> Bundle:
    """A bundle whose logits are every eighth pixel of its input, and whose padding is blue."""
    same = Conv(np.eye(3, dtype=np.float32)[:, :, None, None])  # the first and the last layer never are INT8
    fixed = None if isinstance(size, DynamicSize) else size
    graph = save_graph(folder / "a.onnx", [*color_layers(8), same, same], size=fixed)
    normalization = Normalization("RGB", 1 / LEVELS, (0.0,) * 3, (1.0,) * 3)
    preprocessing = Preprocessing(normalization, resize, PADDING)
    return pack(graph, folder / f"{resize}.atrous", classes=["r", "g", "b"], size=size, preprocessing=preprocessing)


def expected(image: Pixels, resize: ResizePolicy) -> NDArray[np.float64]:
    """Logits [3, H, W] of an image in `make_colored`'s bundle."""
    coarse = padded(image, INPUT, PADDING, resize)[::8, ::8].transpose(2, 0, 1) / LEVELS
    return letterboxed(coarse, image.shape[:2], INPUT, align_corners=False, resize=resize)


def clear(logits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where the best class is ahead by more than rounding in the resizing may take."""
    _, second, best = np.sort(logits, axis=0)
    return best - second > 2 * RESIZE_ORDER_LEVELS / LEVELS + LETTERBOX_ABS
