"""ICC profiles: colours of Display P3, Adobe RGB, printers and others become sRGB, which networks are trained on."""

from __future__ import annotations

import functools
import io
from typing import Final

import numpy as np
from PIL import Image, ImageCms

#: Profiles of sRGB differ in rounding: within so many levels they are left alone, and pixels keep their bits.
_SAME_LEVELS: Final = 2


def profile_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image of mode RGB, L or CMYK to sRGB; its pixels are unchanged where the profile is sRGB's.

    Raises:
        ValueError: the profile is damaged, or of another kind of colours than the image.
    """
    transform = _transform(profile, image.mode)
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:  # only in place
        raise ValueError("nothing was converted")
    return converted


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transformation of a profile to sRGB; None where it does next to nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        probe = _probe(mode)
        result = None if probe is None else ImageCms.applyTransform(probe, transform)
    except (ImageCms.PyCMSError, OSError, ImportError) as exc:  # ImportError: a Pillow without LittleCMS
        raise ValueError(str(exc)) from exc
    if probe is not None and result is not None:
        change = np.abs(np.asarray(result, np.int16) - np.asarray(probe.convert("RGB"), np.int16))
        if change.max() <= _SAME_LEVELS:
            return None
    return transform


def _probe(mode: str) -> Image.Image | None:
    """Colours all over the range; None for CMYK, which is never sRGB."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if mode == "RGB":
        levels = np.linspace(0, 255, 8).astype(np.uint8)
        return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(8, 64, 3))
    return None
