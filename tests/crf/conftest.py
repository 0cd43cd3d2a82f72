"""Small images with structure, and class probabilities that roughly agree with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

Scene = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def make_scene(rng: np.random.Generator) -> Scene:
    """`make_scene(classes, height, width)` → probabilities [C, H, W], image [H, W, 3]."""

    def make(classes: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[:height, :width]
        regions = (x * 3 // width + 2 * (y * 2 // height)) % classes
        colours = rng.integers(30, 226, size=(classes, 3))
        image = np.clip(colours[regions] + rng.integers(-12, 13, size=(height, width, 3)), 0, 255).astype(np.uint8)
        logits = rng.normal(size=(classes, height, width)) + 1.5 * (regions == np.arange(classes)[:, None, None])
        e = np.exp(logits - logits.max(axis=0))
        return (e / e.sum(axis=0)).astype(np.float32), image

    return make
