"""Images in: whatever a caller has becomes one [H, W, 3] uint8 RGB array."""

from __future__ import annotations

import functools
import hashlib
import logging
import operator
import os
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..arguments import check_arguments_besides, check_fields, describe
from ..arrays import as_array
from ..bundle import hash_file
from ..errors import ArgumentError, ImageError, ShapeError
from .color_profiles import profile_to_srgb
from .sample_depth import check_wide_color, is_wide_color, scale_to_8_bits, stored_bits

#: Endings of videos, which Pillow may claim to read too.
VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})

ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any]

#: 16-bit grey modes of Pillow; `convert("RGB")` would clip them at 255 instead of scaling.
_MODES_16_BIT: Final = ("I", "I;16", "I;16B", "I;16L")
_WARNING_FILTERS: Final = threading.Lock()

#: Of a file with more than one.
SEVERAL_PAGES: Final = "has {} pages, of which page 1 is used; choose with --page or ImageFile(path, page=…)"

_logger = logging.getLogger(__name__)
#: What was said of which file: once is enough, however often it is read.
_said: set[str] = set()
#: A folder of thousands of such files says it of the first ones.
_MOST_SAID: Final = 100


@dataclass(frozen=True)
class ImageFile(os.PathLike[str]):
    """A file and how to read it: a path that also says its page and bits, wherever an image may be given.

    Attributes:
        path: of the file.
        page, bits: as `load_image` takes them.

    Raises:
        ArgumentError: a field has a wrong type.
    """

    path: Path
    page: int | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def __fspath__(self) -> str:
        """The path alone, for what only needs the file."""
        return str(self.path)

    def __str__(self) -> str:
        """As messages name it."""
        return str(self.path)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content and of what is read of it; the file's own where nothing is said.

        Raises:
            OSError: the file cannot be read.
        """
        content = bytes.fromhex(hash_file(self.path))
        if self.page is None and self.bits is None:
            return content
        return hashlib.sha256(content + f"page {self.page}, bits {self.bits}".encode()).digest()


@check_arguments_besides("source")
def load_image(source: ImageSource, *, page: int | None = None, bits: int | None = None) -> NDArray[np.uint8]:
    """Read an image as [H, W, 3] uint8 RGB, upright.

    Paths and PIL images: the EXIF orientation is applied; colours with another ICC profile become sRGB; grey, palette
    and CMYK are converted; alpha is dropped, and 16-bit grey scaled to 8 bits. Arrays: [H, W] grey, [H, W, 1],
    [H, W, 3] RGB or [H, W, 4] RGBA, uint8. That transparency is dropped, or that the first of several pages is taken,
    is logged once for each file.

    Args:
        source: a path, an `ImageFile`, a PIL image or an array.
        page: page of a TIFF or frame of an animation, from 1; by default what an `ImageFile` says, else the first.
        bits: significant bits of 16-bit values, 9 to 16; by default what an `ImageFile` or the file says of itself.

    Raises:
        ImageError: the file is missing, empty, truncated, not an image, or too large for Pillow's limit; it has no
            such page; or its 16-bit values may be of fewer bits and neither the file nor `bits` says so.
        ShapeError: an array of another shape or dtype.
        ArgumentError: none of these.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source, path=None, page=page, bits=bits)
    if isinstance(source, ImageFile):
        page, bits = source.page if page is None else page, source.bits if bits is None else bits
    path = path_of(source)
    with open_picture(path) as image:
        return _from_pil(image, path=path, page=page, bits=bits)


def path_of(source: object) -> Path:
    """Take a path as such; raises `ArgumentError` for what is no image."""
    if isinstance(source, (str, os.PathLike)) and isinstance(name := os.fspath(source), str):
        return Path(name)
    raise ArgumentError(
        f"an image is a path, a PIL image or an array [H, W, 3] uint8; got {describe(source)}", argument="image"
    )


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Endings of the images that Pillow reads, in lower case."""
    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    return frozenset(readable - VIDEO_SUFFIXES)


def list_pictures(folder: Path) -> list[Path]:
    """The files in a folder, not deeper, that end like images, sorted; empty where there are none.

    Raises:
        ImageError: the folder cannot be listed.
    """
    suffixes = picture_suffixes()
    try:
        return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in suffixes and entry.is_file())
    except (OSError, ValueError) as exc:  # ValueError: a name that no file can have
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ImageError(f"cannot list the folder {str(folder)!r}: {reason}", path=folder) from exc


def open_picture(path: Path) -> Image.Image:
    """Open an image file and read its header.

    Raises:
        ImageError: the file is missing, empty, not an image, or too large for Pillow's limit.
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


def say_once(text: str, path: Path | None) -> None:
    """Log a warning about a file, unless it was said of that file before."""
    line = f"{path or 'the image'} {text}"
    if line not in _said and len(_said) < _MOST_SAID:
        _said.add(line)
        _logger.warning(line)


def turn_to_page(image: Image.Image, page: int | None, path: Path | None) -> None:
    """Choose a page, from 1; without a choice it is the first of a file, which is said where there are more.

    Raises:
        ImageError: there is no such page.
    """
    pages = getattr(image, "n_frames", 1)
    if page is not None:
        number = operator.index(page)
        if not 1 <= number <= pages:
            raise ImageError(f"{path or 'the image'} has no page {page}; it has {pages}, from 1", path=path)
        image.seek(number - 1)
    # The other images of an MPO are previews or other views of the first; a PIL image is where its owner put it.
    elif pages > 1 and path is not None and image.format != "MPO":
        say_once(SEVERAL_PAGES.format(pages), path)


def _from_pil(image: Image.Image, *, path: Path | None, page: int | None, bits: int | None) -> NDArray[np.uint8]:
    name = str(path) if path else "the image"
    if 0 in image.size:
        raise ImageError(f"{name} has no pixels: it is {image.width}×{image.height}", path=path)
    try:
        turn_to_page(image, page, path)
        known, wide_color = stored_bits(image), is_wide_color(image)
        upright = ImageOps.exif_transpose(image)  # decodes the pixels, if nothing did before
        rgb = None if upright.mode in (*_MODES_16_BIT, "F") else _to_rgb(upright, path)
    except ImageError:
        raise
    except Exception as exc:  # Pillow's decoders raise OSError, SyntaxError, ValueError, RuntimeError, struct.error, …
        raise ImageError(f"cannot decode {name}: {exc}. Is it truncated or damaged?", path=path) from exc
    if rgb is not None:
        pixels = np.asarray(rgb)
        if wide_color:
            check_wide_color(pixels, bits, path)
        return pixels
    if upright.mode == "F":
        raise ImageError(f"{name} holds floats, which have no agreed range; convert it to 8 bits first", path=path)
    return _from_array(scale_to_8_bits(np.asarray(upright), known if bits is None else bits, path))


def _to_rgb(image: Image.Image, path: Path | None) -> Image.Image:
    """Colours as sRGB, without alpha."""
    profile = image.info.get("icc_profile")
    if image.mode == "La":  # grey multiplied by its alpha, of which Pillow makes nothing else
        image = image.convert("LA")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            say_once("is partly transparent, which is ignored: its colours are taken as they are stored", path)
        image = image.convert("RGB")
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    if profile:
        try:
            return profile_to_srgb(image, profile)
        except ValueError as exc:
            say_once(f"has an ICC profile that is ignored: {exc}", path)
    return image.convert("RGB")


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    array = as_array(array, "an image array")  # np.matrix keeps its two axes whatever is done to it
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        expected = "[H, W], [H, W, 1], [H, W, 3] or [H, W, 4] uint8, not empty"
        actual = f"{list(array.shape)} {array.dtype}"
        raise ShapeError(f"an image array must be {expected}; got {actual}", expected=expected, actual=actual)
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    # A copy: callers reuse the buffers of frames, and a result shows its image later.
    return np.array(array[:, :, :3], order="C")
