"""Pictures in: whatever a caller has becomes one [H, W, 3] uint8 RGB array."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..arguments import describe
from ..errors import ArgumentError, ImageError, ShapeError

#: Endings of videos, which Pillow may claim to read too.
VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})

ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

#: 16-bit grey modes of Pillow; `convert("RGB")` would clip them at 255 instead of scaling.
_MODES_16_BIT: Final = ("I", "I;16", "I;16B", "I;16L")
_WARNING_FILTERS: Final = threading.Lock()


def load_image(source: ImageSource) -> NDArray[np.uint8]:
    """Read a picture as [H, W, 3] uint8 RGB, upright.

    Paths and PIL images: the EXIF orientation is applied, grey, palette and CMYK are converted, alpha is dropped,
    16-bit grey is scaled to 8 bits. Arrays: [H, W] grey, [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA, uint8.

    Raises:
        ImageError: the file is missing, empty, truncated, not a picture, or too large for Pillow's limit.
        ShapeError: an array of another shape or dtype.
        ArgumentError: none of these.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source, path=None)
    path = _path_of(source)
    with open_picture(path) as image:
        return _from_pil(image, path=path)


def _path_of(source: object) -> Path:
    if isinstance(source, (str, os.PathLike)) and isinstance(name := os.fspath(source), str):
        return Path(name)
    raise ArgumentError(
        f"an image is a path, a PIL image or an array [H, W, 3] uint8; got {describe(source)}", argument="image"
    )


def list_pictures(folder: Path) -> list[Path]:
    """The files in a folder, not deeper, that end like pictures, sorted; empty where there are none.

    Raises:
        ImageError: the folder cannot be listed.
    """
    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    suffixes = readable - VIDEO_SUFFIXES
    try:
        return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in suffixes and entry.is_file())
    except OSError as exc:
        raise ImageError(f"cannot list the folder {folder}: {exc.strerror}", path=folder) from exc


def open_picture(path: Path) -> Image.Image:
    """Open an image file and read its header.

    Raises:
        ImageError: the file is missing, empty, not a picture, or too large for Pillow's limit.
    """
    try:
        # A bomb warning is for whoever opens files of strangers; the limit itself still raises. The filters belong to
        # the whole process, so threads take turns.
        with _WARNING_FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
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
    except Exception as exc:  # as in _from_pil; a folder or a file without read permission is an OSError
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise ImageError(f"cannot read {path} as a picture: {reason}", path=path) from exc


def _from_pil(image: Image.Image, *, path: Path | None) -> NDArray[np.uint8]:
    name = str(path) if path else "the image"
    if 0 in image.size:
        raise ImageError(f"{name} has no pixels: it is {image.width}×{image.height}", path=path)
    try:
        upright = ImageOps.exif_transpose(image)  # decodes the pixels, if nothing did before
        rgb = None if upright.mode in (*_MODES_16_BIT, "F") else upright.convert("RGB")
    except Exception as exc:  # Pillow's decoders raise OSError, SyntaxError, ValueError, RuntimeError, struct.error, …
        raise ImageError(f"cannot decode {name}: {exc}. Is it truncated or damaged?", path=path) from exc
    if rgb is not None:
        return np.asarray(rgb)
    if upright.mode == "F":
        raise ImageError(f"{name} holds floats, which have no agreed range; convert it to 8 bits first", path=path)
    wide = np.asarray(upright)
    if wide.min() < 0 or wide.max() > np.iinfo(np.uint16).max:
        raise ImageError(
            f"{name} is grey with values from {wide.min()} to {wide.max()}; expected 8 or 16 bits: 0 to 65535. "
            "Convert it to 8 bits first.",
            path=path,
        )
    return _from_array((wide >> 8).astype(np.uint8))


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        expected = "[H, W], [H, W, 1], [H, W, 3] or [H, W, 4] uint8, not empty"
        actual = f"{list(array.shape)} {array.dtype}"
        raise ShapeError(f"an image array must be {expected}; got {actual}", expected=expected, actual=actual)
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    # A copy: callers reuse the buffers of frames, and a result shows its picture later.
    return np.array(array[:, :, :3], order="C")
