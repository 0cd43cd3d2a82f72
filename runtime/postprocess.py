"""Full-size labels or probabilities of coarse logits: bilinear upsampling fused with what follows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._native import all_finite
from .._native import upsample_labels as native_labels
from .._native import upsample_logits as native_logits
from .._native import upsample_probabilities as native_probabilities
from ..arrays import class_maps, not_finite
from ..errors import ShapeError
from ..manifest import Size


def upsample_labels(
    logits: ArrayLike, full_size: Size, *, crop: Size | None = None, align_corners: bool, threads: int = 0
) -> NDArray[np.uint8]:
    """The class of the largest upsampled logit at each pixel.

    Equals `torch.nn.functional.interpolate(logits, full_size, mode="bilinear")` followed by argmax, without ever
    holding the upsampled logits.

    Args:
        logits: [C, h, w] floating point, C ≤ 256, finite.
        full_size: (H, W) to resize to; smaller than the logits is fine.
        crop: (Hc, Wc), the top-left part of the result to compute; all of it by default.
        align_corners: as in torch: whether corner samples (True) or corner edges (False) coincide.
        threads: CPU threads; 0 uses all cores.

    Returns:
        Labels [Hc, Wc] uint8; of equal logits the lowest class wins.

    Raises:
        ShapeError: shapes, dtypes or values do not fit.
    """
    maps, full, out = _checked(logits, full_size, crop)
    return native_labels(maps, full, out, align_corners, threads)


def upsample_probabilities(
    logits: ArrayLike, full_size: Size, *, crop: Size | None = None, align_corners: bool, threads: int = 0
) -> NDArray[np.float32]:
    """Softmax over the classes of the upsampled logits; arguments and errors as in `upsample_labels`.

    Returns:
        Probabilities [C, Hc, Wc] float32.
    """
    maps, full, out = _checked(logits, full_size, crop)
    return native_probabilities(maps, full, out, align_corners, threads)


def upsample_logits(
    logits: ArrayLike, full_size: Size, *, crop: Size | None = None, align_corners: bool, threads: int = 0
) -> NDArray[np.float32]:
    """The upsampled logits; arguments and errors as in `upsample_labels`.

    Returns:
        Logits [C, Hc, Wc] float32.
    """
    maps, full, out = _checked(logits, full_size, crop)
    return native_logits(maps, full, out, align_corners, threads)


def _checked(logits: ArrayLike, full_size: Size, crop: Size | None) -> tuple[NDArray[np.float32], Size, Size]:
    maps = np.ascontiguousarray(class_maps(logits, "logits"), dtype=np.float32)
    height, width = full_size
    out_height, out_width = crop if crop is not None else full_size
    if not (1 <= out_height <= height and 1 <= out_width <= width):
        raise ShapeError(
            f"crop must lie inside the full size: expected 1×1 to {height}×{width}, got {out_height}×{out_width}",
            expected=f"1×1 to {height}×{width}",
            actual=f"{out_height}×{out_width}",
        )
    if not all_finite(maps):
        raise not_finite(maps, "logits")
    return maps, (height, width), (out_height, out_width)
