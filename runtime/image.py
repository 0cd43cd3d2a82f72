"""Pictures in: whatever a caller has becomes one [H, W, 3] uint8 RGB array."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Final, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError, ShapeError

ImageSource = Union[str, "os.PathLike[str]", Image.Image, NDArray[np.uint8]]

#: 16-bit grey modes of Pillow; `convert("RGB")` would clip them at 255 instead of scaling.
_MODES_16_BIT: Final = ("I", "I;16", "I;16B", "I;16L")


def load_image(source: ImageSource) -> NDArray[np.uint8]:
    """Read a picture as [H, W, 3] uint8 RGB, upright.

    Paths and PIL images: the EXIF orientation is applied, grey, palette and CMYK are converted, alpha is dropped,
    16-bit grey is scaled to 8 bits. Arrays: [H, W] grey, [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA, uint8.

    Raises:
        ImageError: the file is missing, empty, truncated, not a picture, or too large for Pillow's limit.
        ShapeError: an array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source, path=None)
    path = Path(source)
    try:
        # A bomb warning is for whoever opens files of strangers; the limit itself still raises.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _from_pil(image, path=path)
    except FileNotFoundError as exc:
        raise ImageError(f"no such image: {path}", path=path) from exc
    except Image.DecompressionBombError as exc:
        raise ImageError(
            f"{path} is too large: {exc}. Raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file, or pass an array.",
            path=path,
        ) from exc
    except UnidentifiedImageError as exc:
        detail = "is empty (0 bytes)" if path.stat().st_size == 0 else "is not a picture in a format that Pillow reads"
        raise ImageError(f"{path} {detail}", path=path) from exc
    except (OSError, SyntaxError, ValueError) as exc:
        raise ImageError(f"cannot read {path} as a picture: {exc}. Is it truncated?", path=path) from exc


def _from_pil(image: Image.Image, *, path: Path | None) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _MODES_16_BIT:
        wide = np.asarray(upright)
        if wide.min() < 0 or wide.max() > np.iinfo(np.uint16).max:
            raise ImageError(f"a grey image of mode {upright.mode!r} must hold 16-bit values", path=path)
        return _from_array((wide >> 8).astype(np.uint8))
    if upright.mode == "F":
        raise ImageError("floating-point images have no agreed range; convert to 8 bits first", path=path)
    return np.asarray(upright.convert("RGB"))


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        expected = "[H, W], [H, W, 1], [H, W, 3] or [H, W, 4] uint8, not empty"
        actual = f"{list(array.shape)} {array.dtype}"
        raise ShapeError(f"an image array must be {expected}; got {actual}", expected=expected, actual=actual)
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])
