"""Full-size labels or probabilities of coarse logits: bilinear upsampling fused with what follows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._native import Geometry, all_finite
from .._native import upsample_labels as native_labels
from .._native import upsample_logits as native_logits
from .._native import upsample_probabilities as native_probabilities
from ..arrays import Labels, class_maps, not_finite


def upsample_labels(logits: ArrayLike, geometry: Geometry, *, align_corners: bool, threads: int = 0) -> Labels:
    """The class of the largest upsampled logit at each pixel.

    Equals `torch.nn.functional.interpolate(logits, input_size, mode="bilinear")`, cropped to the image, followed by
    argmax, without ever holding the upsampled logits; of stretched images the size is that of the image. Logits of a
    letterbox that belong to padding alone are left out.

    Args:
        logits: [C, h, w] floating point, C ≤ 65536, finite; of the whole input.
        geometry: sizes of the image and of the input; smaller than the logits is fine.
        align_corners: as in torch: whether corner samples (True) or corner edges (False) coincide.
        threads: CPU threads; 0 uses all cores.

    Returns:
        Labels [H, W] uint8, or uint16 of more than 256 classes, of the image; of equal logits the lowest class wins.

    Raises:
        ShapeError: shapes, dtypes or values do not fit.
    """
    maps = _checked(logits)
    return native_labels(maps, geometry, align_corners, threads)


def upsample_probabilities(
    logits: ArrayLike, geometry: Geometry, *, align_corners: bool, threads: int = 0
) -> NDArray[np.float32]:
    """Softmax over the classes of the upsampled logits; arguments and errors as in `upsample_labels`.

    Returns:
        Probabilities [C, H, W] float32.
    """
    maps = _checked(logits)
    return native_probabilities(maps, geometry, align_corners, threads)


def upsample_logits(
    logits: ArrayLike, geometry: Geometry, *, align_corners: bool, threads: int = 0
) -> NDArray[np.float32]:
    """The upsampled logits; arguments and errors as in `upsample_labels`.

    Returns:
        Logits [C, H, W] float32.
    """
    maps = _checked(logits)
    return native_logits(maps, geometry, align_corners, threads)


def _checked(logits: ArrayLike) -> NDArray[np.float32]:
    maps = np.ascontiguousarray(class_maps(logits, "logits"), dtype=np.float32)
    if not all_finite(maps):
        raise not_finite(maps, "logits")
    return maps
