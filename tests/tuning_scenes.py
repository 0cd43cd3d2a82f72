"""Images whose colours say where classes are, for a network that sees every eighth pixel: a CRF must help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)


def write_scenes(folder: Path, count: int = 6, *, seed: int = 0, blue: int = 0) -> tuple[Path, Path]:
    """Write `images/N.png` and `masks/N.png` for `color_bundle`; a stripe of 9 is void.

    Regions are of class 0, 1 or 2, in a colour whose largest channel is the class, which noise hides from single
    pixels but not from many. `blue` is added to that channel, so that a network sees too much of class 2.
    """
    rng = np.random.default_rng(seed)
    images, masks = folder / "images", folder / "masks"
    for each in (images, masks):
        each.mkdir(parents=True)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for number in range(count):
        centres = rng.uniform(0, 1, (7, 2)) * SIZE
        nearest = ((rows[..., None] - centres[:, 0]) ** 2 + (columns[..., None] - centres[:, 1]) ** 2).argmin(-1)
        truth = np.arange(7)[nearest] % 3
        colors = 90 + 10.0 * np.eye(3)[truth] + 40 * truth[..., None] + rng.normal(0, 5, (*SIZE, 3))
        colors[..., 2] += blue
        Image.fromarray(colors.clip(0, 255).astype(np.uint8)).save(images / f"{number}.png")
        mask = truth.astype(np.uint8)
        mask[:, :3] = 9
        Image.fromarray(mask).save(masks / f"{number}.png")
    return images, masks
