"""Images of requests: arrays as they are, and JPEG or PNG files that are decoded within limits."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..bands import Bands
from ..runtime.band_images import Pixels, load_pixels
from .limits import Holding, Limits
from .refusals import RefusedError, bad_request
from .tensors import BYTES, DATATYPES, Tensor

#: Names of inputs, of which a request has one.
IMAGE: Final = "IMAGE"
ENCODED: Final = "ENCODED"

#: Formats of files, by Pillow's names: two decoders of strangers' bytes are enough.
_FORMATS: Final = ("JPEG", "PNG")
_RGB: Final = ("uint8", 3)


def image_type(bands: Bands | None) -> tuple[str, int]:
    """NumPy's name of the type of a network's images, and the number of their bands."""
    return _RGB if bands is None else (bands.dtype, len(bands.names))


def image_of(inputs: Mapping[str, Tensor], bands: Bands | None, limits: Limits, holding: Holding) -> Pixels:
    """The image of a request: [H, W, 3] uint8 RGB, or what the network's bands say.

    Raises:
        RefusedError: there is not exactly one image, or it is too large, or none for this network.
    """
    if len(inputs) != 1 or not inputs.keys() <= {IMAGE, ENCODED}:
        raise bad_request(f"expected one input, {IMAGE} or {ENCODED}; got {', '.join(map(repr, inputs)) or 'none'}")
    ((name, tensor),) = inputs.items()
    if name == ENCODED:
        return decode(_file_of(tensor), bands, limits, holding)
    return _checked(tensor, bands, limits)


def decode(data: bytes, bands: Bands | None, limits: Limits, holding: Holding) -> Pixels:
    """Decode a JPEG or PNG as a segmenter reads it from a file; its size is checked before its pixels are.

    Raises:
        RefusedError: it is too large, or not one of these.
        ImageError: it is damaged, or no image for this network.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise RefusedError(413, f"the image is too large: {exc}") from exc
    except Exception as exc:  # UnidentifiedImageError, and whatever Pillow's readers of headers raise
        raise bad_request(f"the file of {len(data)} bytes is not one of {' and '.join(_FORMATS)}") from exc
    with picture:
        _check_pixels(picture.height, picture.width, limits)
        dtype, count = image_type(bands)
        # As decoded, upright and in the network's type: three of it are alive at once.
        holding.add(3 * picture.height * picture.width * max(count, 3) * np.dtype(dtype).itemsize)
        return load_pixels(picture, bands)


def _file_of(tensor: Tensor) -> bytes:
    if isinstance(tensor.values, bytes):
        return tensor.values
    if tensor.datatype != "UINT8" or tensor.values.ndim != 1:
        raise bad_request(
            f"{ENCODED} is the bytes of a file, UINT8 [-1] or {BYTES} [1]; got {tensor.datatype} {list(tensor.shape)}"
        )
    return tensor.values.tobytes()


def _checked(tensor: Tensor, bands: Bands | None, limits: Limits) -> NDArray[Any]:
    """The values of an IMAGE, not copied: the segmenter does."""
    dtype, count = image_type(bands)
    values, shape = tensor.values, tensor.shape
    if tensor.datatype != DATATYPES[dtype] or isinstance(values, bytes) or len(shape) != 3 or shape[2] != count:
        hint = "; leave the batch axis out" if len(shape) == 4 and shape[0] == 1 else ""
        raise bad_request(
            f"{IMAGE} is {DATATYPES[dtype]} [-1, -1, {count}], height and width first; got {tensor.datatype} "
            f"{list(shape)}{hint}"
        )
    _check_pixels(shape[0], shape[1], limits)
    return values


def _check_pixels(height: int, width: int, limits: Limits) -> None:
    if not height or not width:
        raise bad_request(f"the image has no pixels: it is {height}×{width}")
    if height * width > limits.pixels:
        raise RefusedError(413, f"the image has {height}×{width} pixels, of at most {limits.pixels}")
