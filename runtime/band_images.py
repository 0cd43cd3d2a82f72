"""Images of other bands than RGB in bytes: arrays, TIFFs of many bands, and what Pillow reads as it is stored."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..arrays import as_array
from ..bands import Bands
from ..errors import ImageError, ShapeError, importing
from .image import (
    SEVERAL_PAGES,
    ImageFile,
    ImageSource,
    load_image,
    open_picture,
    path_of,
    say_once,
    turn_to_page,
)
from .sample_depth import is_wide_color

if TYPE_CHECKING:
    from tifffile import TiffPage

#: Samples of an image, [H, W, B] of the type of its bands.
Pixels = NDArray[Any]

#: Beginnings of TIFF and BigTIFF, in both orders of bytes.
_TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: Modes of Pillow whose samples are bands as they are stored, and their type.
_STORED: Final = {"L": "uint8", "RGB": "uint8", "RGBA": "uint8", "CMYK": "uint8", "I": "uint16", "F": "float32"}
_ORIENTATION: Final = 274


def load_pixels(source: ImageSource, bands: Bands | None) -> Pixels:
    """Read an image for a network: as `load_image` does where `bands` is None, else as `load_bands`."""
    return load_image(source) if bands is None else load_bands(source, bands)


def load_bands(source: ImageSource, bands: Bands) -> Pixels:
    """Read an image as [H, W, B] of the type of its bands; nothing is scaled, converted or dropped.

    Args:
        source: an array [H, W, B], or [H, W] of one band; a TIFF with B samples a pixel, or of B pages with one; a
            picture that Pillow reads, or has read, as B samples of that type. An `ImageFile` may say its page.
        bands: what is expected.

    Raises:
        ImageError: the file is unreadable, has other bands, bands of different sizes, or NaN or infinity.
        ShapeError: an array of another shape or dtype, or with NaN or infinity.
        MissingDependencyError: a TIFF, and tifffile is not installed.
    """
    if isinstance(source, np.ndarray):
        return _checked(as_array(source, "an image array"), bands, "an image array", ShapeError)
    if isinstance(source, Image.Image):
        return _checked(_stored(source, None), bands, "the image", ImageError)
    path, page = path_of(source), None
    if isinstance(source, ImageFile):
        page = source.page
        if source.bits is not None:
            raise ImageError(
                f"bits={source.bits} scales grey to 8 bits, and this network takes {bands} as they are stored; leave "
                "it out. The ranges of bands are in the bundle",
                path=path,
            )

    def error(message: str) -> ImageError:
        return ImageError(message, path=path)

    if _is_tiff(path):
        return _checked(read_tiff(path, len(bands.names), page), bands, str(path), error)
    with open_picture(path) as image:
        turn_to_page(image, page, path)
        return _checked(_stored(image, path), bands, str(path), error)


def _checked(array: Pixels, bands: Bands, name: str, error: Callable[[str], Exception]) -> Pixels:
    """A copy, since callers reuse the buffers of frames; raises where the array is not what the bands say."""
    if array.ndim == 2:
        array = array[..., None]
    count, dtype = len(bands.names), np.dtype(bands.dtype)
    if array.ndim != 3 or array.shape[2] != count or array.dtype.newbyteorder("=") != dtype or 0 in array.shape:
        hint = ""
        if array.ndim == 3 and array.shape[0] == count != array.shape[2]:
            hint = "; its bands come first: np.moveaxis(image, 0, 2)"
        elif array.ndim == 3 and array.shape[2] == count and 0 not in array.shape:
            hint = "; convert its values to what the network was trained on"
        raise error(
            f"{name} is {list(array.shape)} {array.dtype.newbyteorder('=')}; expected [H, W, {count}] {dtype}, the "
            f"network's {bands} ({', '.join(bands.names)}), not empty{hint}"
        )
    copied = np.array(array, dtype, order="C")
    if dtype.kind == "f" and not np.isfinite(copied).all():
        row, column, band = (int(index) for index in np.argwhere(~np.isfinite(copied))[0])
        raise error(
            f"{name} has {copied[row, column, band]} at row {row}, column {column} of {bands.names[band]!r}, and "
            f"{np.count_nonzero(~np.isfinite(copied))} values in all that are not finite; expected numbers. Where "
            "there is no data, put a value that the network was trained on"
        )
    return copied


def _stored(image: Image.Image, path: Path | None) -> Pixels:
    """Samples as Pillow stores them, upright."""
    name = path or "the image"
    mode = image.mode.partition(";")[0]
    if is_wide_color(image):
        raise ImageError(f"{name} has colours of 16 bits, of which Pillow keeps 8; save it as a TIFF", path=path)
    if mode not in _STORED or "transparency" in image.info:
        raise ImageError(
            f"{name} is of Pillow's mode {image.mode}, whose values are no bands; expected one of {', '.join(_STORED)}",
            path=path,
        )
    try:
        array = np.asarray(ImageOps.exif_transpose(image))
    except Exception as exc:  # Pillow's decoders raise OSError, SyntaxError, ValueError, …
        raise ImageError(f"cannot decode {name}: {exc}. Is it truncated or damaged?", path=path) from exc
    if mode != "I" or array.dtype.itemsize == 2:
        return array
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.uint16).max):
        raise ImageError(f"{name} has values from {array.min()} to {array.max()}, beyond 16 bits", path=path)
    return array.astype(np.uint16)


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _TIFF_MAGIC
    except OSError:  # as `open_picture` will say
        return False


def read_tiff(path: Path, count: int | None = None, page: int | None = None) -> Pixels:
    """Read the samples [H, W, B] of a page of a TIFF, or of all pages where each holds one band.

    Args:
        path: of the file.
        count: of the bands that are expected; None where any number is.
        page: from 1; by default all that hold one band each, else the first.

    Raises:
        ImageError: the file is unreadable, turned, or has no such page or bands of different sizes.
        MissingDependencyError: tifffile is not installed.
    """
    with importing("bands", purpose="reading bands of a TIFF"):
        from tifffile import TiffFile
    try:
        with TiffFile(path) as file:
            # Overviews of a whole, and masks, are pages as well.
            pages: list[TiffPage] = [each.aspage() for each in file.pages if not int(each.aspage().subfiletype)]
            return _joined(_chosen(pages, page, path), count, path)
    except ImageError:
        raise
    except Exception as exc:  # tifffile's own, those of its decoders, OSError
        raise ImageError(f"cannot read {path} as a TIFF: {exc}", path=path) from exc


def _chosen(pages: Sequence[TiffPage], page: int | None, path: Path) -> Sequence[TiffPage]:
    if page is None:
        return pages
    number = operator.index(page)
    if not 1 <= number <= len(pages):
        raise ImageError(f"{path} has no page {page}; it has {len(pages)}, from 1", path=path)
    return [pages[number - 1]]


def _joined(pages: Sequence[TiffPage], count: int | None, path: Path) -> Pixels:
    if not pages:
        raise ImageError(f"{path} has no image", path=path)
    turned = next((int(tag.value) for page in pages if (tag := page.tags.get(_ORIENTATION))), 1)
    if turned != 1:
        raise ImageError(f"{path} is stored turned or mirrored (orientation {turned}); save it upright", path=path)
    if pages[0].samplesperpixel == 1 and len(pages) == (count or len(pages)):
        sizes = list(dict.fromkeys((page.imagelength, page.imagewidth) for page in pages))
        if len(sizes) > 1:
            raise ImageError(
                f"{path} has bands of different sizes: {', '.join(f'{height}×{width}' for height, width in sizes)}; "
                "expected one size. Resample them to one grid first",
                path=path,
            )
        return np.concatenate([_samples(page) for page in pages], axis=2)
    if len(pages) > 1:
        say_once(SEVERAL_PAGES.format(len(pages)), path)
    return _samples(pages[0])


def _samples(page: TiffPage) -> Pixels:
    """Samples [H, W, B] of a page, whether its bands are stored pixel by pixel or one after the other."""
    planes = page.asarray(squeeze=False)  # [planes, depth, H, W, samples]
    if planes.shape[1] != 1:
        raise ValueError(f"it is a volume of depth {planes.shape[1]}")
    planes = np.moveaxis(planes[:, 0], 0, 2)
    return planes.reshape(*planes.shape[:2], -1)
