"""Real photos, and class probabilities like a network's, for the numeric gates of the dense CRF."""

from __future__ import annotations

import numpy as np
from PIL import Image

from atrous.runtime.postprocess import upsample_probabilities
from atrous.runtime.preprocess import Geometry

#: Of scikit-learn.
NAMES = ("china.jpg", "flower.jpg")


def photo(name: str, size: tuple[int, int]) -> np.ndarray:
    """One of `NAMES` resized to (height, width): [H, W, 3] uint8."""
    from sklearn.datasets import load_sample_image

    picture = Image.fromarray(load_sample_image(name))
    return np.array(picture.resize(size[::-1], Image.Resampling.BICUBIC))


def network_like(classes: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth scores at a coarse grid, upsampled: [C, H, W] float32."""
    coarse = np.random.default_rng(0).normal(scale=3, size=(classes, size[0] // 8 + 1, size[1] // 8 + 1))
    return upsample_probabilities(coarse, Geometry(size, size, "none"), align_corners=True)
