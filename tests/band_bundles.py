"""Networks that take other images than RGB in bytes, and such images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_graphs import Conv, local_layers, make_bundle

from atrous.bands import Bands
from atrous.bundle import Bundle
from atrous.exporter.sizes import DynamicSize
from atrous.manifest import ResizePolicy, Size

RGBN = Bands.of(("red", "green", "blue", "near infrared"))
#: A camera of 12 bits.
GREY16 = Bands.of(("grey",), "uint16", ranges=((0, 4095),))
FLOATS = Bands.of(("vv", "vh"), "float32", ranges=((-25, 0), (-30, -5)))
#: Colours as in pictures of vegetation, and weights that differ.
INFRARED = Bands.of(RGBN.names, colors=(3, 0, 1), crf_weights=(1.0, 0.5, 0.25))
ALL = {"rgbn": RGBN, "grey16": GREY16, "floats": FLOATS}

SIZES = DynamicSize((32, 32), (64, 96), (128, 128), multiple=8)


def scene(bands: Bands, size: Size, seed: int = 0) -> NDArray[np.generic]:
    """Patches larger than a cell, and a little noise: [H, W, B] over the range of each band."""
    rng, (height, width) = np.random.default_rng(seed), size
    coarse = rng.uniform(0, 0.8, (-(-height // 9), -(-width // 9), len(bands.names)))
    levels = np.repeat(np.repeat(coarse, 9, axis=0), 9, axis=1)[:height, :width]
    levels = levels + rng.uniform(0, 0.2, levels.shape)
    low, high = np.array(bands.ranges).T
    return (low + levels * (high - low)).astype(bands.dtype)


def make_band_bundle(
    path: Path, bands: Bands, *, resize: ResizePolicy = "none", fixed: Size | None = None, classes: int = 5
) -> Bundle:
    """A random network for 32×32 to 128×128, or one size."""
    layers = local_layers(classes, bands=len(bands.names))
    return make_bundle(path, layers, sizes=None if fixed else SIZES, fixed=fixed, resize=resize, bands=bands)


def make_largest_bundle(path: Path, bands: Bands) -> Bundle:
    """Class i where band i is the largest of its range, at every 8th pixel; two classes at least."""
    weight = 9 * np.eye(max(2, len(bands.names)), len(bands.names), dtype=np.float32)
    return make_bundle(path, [Conv(weight[:, :, None, None], stride=8)], sizes=SIZES, bands=bands)
