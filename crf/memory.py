"""Estimate of the memory of a dense CRF, before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from ..errors import CRFError
from .params import Storage

#: Lattice index (4) and weight (4) of a pixel's corner, sorted entry (8), and neighbour links of 1.5 vertices a pixel
#: (12), with their shares of masses (6) for fractions.
_BYTES_PER_CORNER: Final = {"fp32": 28, "unorm16": 34}


def check_memory(classes: int, size: Sequence[int], corners: Sequence[int], *, storage: Storage = "fp32") -> None:
    """Raise CRFError if maps of this size would exceed 32-bit indices or this machine's memory.

    Args:
        classes: number of classes.
        size: of an image or a volume, in pixels.
        corners: of each kernel, one more than it has features.
        storage: storage of values on the lattice and of Q.
    """
    pixels = 1
    for length in size:
        pixels *= length
    padded = 1 if classes == 1 else -(-classes // 8) * 8
    row_bytes = padded * (2 if storage == "unorm16" else 4)
    # Unaries and output, then marginals and values of about as many vertices as pixels in each of the lattices.
    estimate = pixels * (8 * padded + (1 + len(corners)) * row_bytes + _BYTES_PER_CORNER[storage] * sum(corners))
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = max(corners, default=1)
    if pixels * most >= 2**31 or estimate > available:
        raise CRFError(
            f"a dense CRF of {classes} classes on {'×'.join(map(str, size))} pixels needs about "
            f"{estimate / 2**30:.1f} GiB; this machine has {available / 2**30:.1f} GiB and the limit is "
            f"{2**31 // most / 1e6:.0f} million pixels. Refine a smaller image or tiles of it"
        )
