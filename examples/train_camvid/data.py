"""CamVid at 480×360 with 11 classes: in memory, with the augmentation of the training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
COLORS = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
IGNORE = 255
_VOID = 11
#: EfficientNet-Lite was trained on (x − 127) / 128.
MEAN = 127.0
STD = 128.0


@dataclass(frozen=True)
class Split:
    """Images [N, 3, H, W] uint8 and masks [N, H, W] uint8, `IGNORE` where unlabelled."""

    images: Tensor
    masks: Tensor

    @classmethod
    def load(cls, folder: Path) -> Split:
        """Read `folder`/images/*.jpg and the `folder`/masks/*.png of the same stems."""
        paths = sorted((folder / "images").glob("*.jpg"))
        if not paths:
            message = f"no images in {folder / 'images'}; expected CamVid as images/*.jpg and masks/*.png"
            raise FileNotFoundError(message)
        images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        masks = [np.asarray(Image.open(folder / "masks" / f"{path.stem}.png")) for path in paths]
        mask = torch.from_numpy(np.stack(masks))
        return cls(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), mask.masked_fill(mask == _VOID, IGNORE))


def normalize(images: Tensor) -> Tensor:
    """uint8 or float 0–255 [N, 3, H, W] → float32 in channels_last, the network's input."""
    return ((images.float() - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def augment(split: Split, indices: Tensor, crop: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Random scale 0.5–1.75, crop, flip and colour jitter → (input [B, 3, crop, crop], masks [B, crop, crop])."""
    pairs = [_augment_one(split.images[i], split.masks[i], crop, generator) for i in indices.tolist()]
    return normalize(torch.stack([image for image, _ in pairs])), torch.stack([mask for _, mask in pairs])


def _augment_one(image: Tensor, mask: Tensor, crop: int, generator: Generator) -> tuple[Tensor, Tensor]:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    # Crop first at the size that the scale maps onto `crop`: nothing outside the crop is ever resized.
    window = round(crop / uniform(0.5, 1.75))
    height, width = mask.shape
    top = round(uniform(min(0, height - window), max(0, height - window)))
    left = round(uniform(min(0, width - window), max(0, width - window)))
    pad = (max(0, -left), max(0, left + window - width), max(0, -top), max(0, top + window - height))
    rows, columns = slice(max(0, top), top + window), slice(max(0, left), left + window)
    pixels = functional.pad(image[:, rows, columns].float(), pad, value=MEAN)
    labels = functional.pad(mask[rows, columns], pad, value=IGNORE)
    pixels = functional.interpolate(pixels[None], size=(crop, crop), mode="bilinear", align_corners=False)[0]
    labels = functional.interpolate(labels[None, None].float(), size=(crop, crop), mode="nearest")[0, 0]
    if uniform(0, 1) < 0.5:
        pixels, labels = pixels.flip(2), labels.flip(1)
    pixels = (pixels - MEAN) * uniform(0.75, 1.25) + MEAN + 255 * uniform(-0.1, 0.1)
    gray = pixels.mean(0, keepdim=True)
    pixels = (gray + (pixels - gray) * uniform(0.7, 1.3)).clamp(0, 255)
    return pixels, labels.long()
