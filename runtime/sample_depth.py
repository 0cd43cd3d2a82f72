"""Depth of samples: 16-bit files may hold 16 bits, or the 10, 12 or 14 that a camera gives."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError

#: Tags of TIFF.
_BITS_PER_SAMPLE: Final = 258
_MAX_SAMPLE_VALUE: Final = 281
#: An image of 16 bits that is darker than a quarter is as likely one of 14 bits or fewer.
_CERTAIN_BITS: Final = 14


def stored_bits(image: Image.Image) -> int | None:
    """Significant bits of 16-bit samples as the file says; None where it does not."""
    if image.format == "PPM":  # Pillow scales by the header's maximum
        return 16
    tags = getattr(image, "tag_v2", {})
    bits = _first(tags.get(_BITS_PER_SAMPLE))
    if bits is not None and 8 < bits < 16:
        return bits
    largest = _first(tags.get(_MAX_SAMPLE_VALUE))
    if largest is not None and largest & (largest + 1) == 0 and 8 < largest.bit_length() <= 16:
        return largest.bit_length()
    return None


def is_wide_color(image: Image.Image) -> bool:
    """True if Pillow will reduce 16-bit colours to their high bytes; to be asked before pixels are decoded."""
    return ";16" in str([tile[3] for tile in getattr(image, "tile", ())]) and not image.mode.startswith("I")


def scale_to_8_bits(wide: NDArray[Any], bits: int | None, path: Path | None) -> NDArray[np.uint8]:
    """Scale grey values [H, W] of `bits` significant bits.

    Raises:
        ImageError: values are out of range, or `bits` is None and it is not clear of how many bits they are.
    """
    name = path or "the image"
    smallest, largest = int(wide.min()), int(wide.max())
    if smallest < 0 or largest > np.iinfo(np.uint16).max:
        raise ImageError(
            f"{name} is grey with values from {smallest} to {largest}; expected 8 or 16 bits: 0 to 65535. Convert it "
            "to 8 bits first.",
            path=path,
        )
    if bits is None and 0 < largest < 1 << _CERTAIN_BITS:
        raise ImageError(
            f"{name} is 16-bit grey with values up to {largest} only. Is it a dark image of 16 bits, or one of fewer? "
            f"Say it: --bits {max(largest.bit_length(), 12)}, or ImageFile(path, bits=12); 16 for a dark one.",
            path=path,
        )
    significant = 16 if bits is None else check_bits(bits)
    if largest >> significant:
        raise ImageError(f"{name} has values up to {largest}, which are not of {significant} bits", path=path)
    return (wide >> (significant - 8)).astype(np.uint8)


def check_wide_color(high_bytes: NDArray[np.uint8], bits: int | None, path: Path | None) -> None:
    """Refuse 16-bit colours whose high bytes are nearly empty: they are of fewer bits, and the rest is lost.

    Raises:
        ImageError: they are, and `bits` is not 16.
    """
    if (bits is None and high_bytes.max() >> (_CERTAIN_BITS - 8)) or (bits is not None and check_bits(bits) == 16):
        return
    raise ImageError(
        f"{path or 'the image'} has 16-bit colours that are {'' if bits is None else 'said to be '}of fewer bits, and "
        "Pillow reads the high bytes alone. Convert it to 8 bits first; or say that it is a dark image: --bits 16, or "
        "ImageFile(path, bits=16).",
        path=path,
    )


def check_bits(bits: int) -> int:
    """Validate a number of significant bits; raises `ImageError`."""
    number = operator.index(bits)
    if not 9 <= number <= 16:
        raise ImageError(f"bits are the significant ones of 16-bit values, 9 to 16; got {bits}")
    return number


def _first(value: Any) -> int | None:  # noqa: ANN401 - of a tag
    while isinstance(value, tuple) and value:
        value = value[0]
    return int(value) if isinstance(value, int) else None
