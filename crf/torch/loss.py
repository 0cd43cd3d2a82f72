"""The dense CRF as a regularizer of training with weak labels."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ...arguments import MAX_THREADS, check_arguments_besides
from ...errors import CRFError, ShapeError
from ..kept_filters import KEPT_FILTERS, FilterOptions
from ..params import Normalization
from .checks import check_finite, checked_images, checked_maps
from .filtering import apply_filter

Reduction = Literal["mean", "sum"]


@check_arguments_besides("probabilities", "images", "mask")
def dense_crf_loss(
    probabilities: torch.Tensor,
    images: torch.Tensor | NDArray[np.uint8],
    *,
    sigma_xy_px: float = 100.0,
    sigma_rgb: float = 15.0,
    mask: torch.Tensor | None = None,
    normalization: Normalization = "none",
    reduction: Reduction = "mean",
    threads: int = 0,
) -> torch.Tensor:
    """Cost of a soft segmentation that cuts through similar pixels, Σ_k s_kᵀ W (1 − s_k).

    The relaxed Potts energy of the dense CRF (Tang et al. 2018, On Regularized Losses for Weakly-supervised CNN
    Segmentation, arXiv 1803.09569, eq. 6), with the appearance kernel W on the permutohedral lattice, pixels' own terms
    included. It needs no labels: add it to a partial cross-entropy on scribbles or seeds. The gradient is that of the
    value which is computed, through the lattice's filter and its transpose.

    Args:
        probabilities: s, [N, C, H, W] float32 on the CPU, such as softmax(logits).
        images: [N, H, W, 3] uint8 RGB on the CPU, not normalized.
        sigma_xy_px: standard deviation of positions, in pixels.
        sigma_rgb: standard deviation of colours, in units of 0…255.
        mask: [N, H, W] bool or of 0 and 1; pixels outside, such as padding, take no part. All pixels by default.
        normalization: `none` for the sum above, which grows with the number of similar pixels; `symmetric` divides by
            √s on both sides, with s the kernel's response to ones, so that the loss per pixel is below 1.
        reduction: `mean` divides the sum over all images by the number of pixels that take part; `sum` does not.
        threads: CPU threads; 0 uses all cores.

    Returns:
        The loss, a scalar float32.

    Raises:
        ArgumentError: an argument has the wrong type.
        ShapeError: shapes, dtypes or the values of the mask are wrong.
        DeviceError: a tensor is not on the CPU.
        CRFError: probabilities are NaN or infinite, a number is out of range, or a sigma is too small for the image.
    """
    maps = checked_maps(probabilities, "probabilities")
    pixels = checked_images(images, maps)
    check_finite(maps.detach(), "probabilities")
    if reduction not in get_args(Reduction):
        raise CRFError(f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}")
    if not 0 <= threads <= MAX_THREADS:
        raise CRFError(f"threads must be 0 to {MAX_THREADS}, got {threads}")
    weights = _checked_mask(mask, maps)
    options = _options((maps.shape[2], maps.shape[3]), sigma_xy_px, sigma_rgb, normalization)
    losses = []
    for planes, image, inside in zip(maps.flatten(2), pixels, weights.flatten(1), strict=True):
        lattice = KEPT_FILTERS.bilateral(image, options, threads=threads)
        segments = planes * inside
        losses.append((segments * apply_filter(inside - segments, lattice, threads)).sum())
    total = torch.stack(losses).sum()
    return total / weights.sum().clamp_min(1.0) if reduction == "mean" else total


def _options(
    size: tuple[int, int], sigma_xy_px: float, sigma_rgb: float, normalization: Normalization
) -> FilterOptions:
    """Options of the appearance kernel; raises `CRFError` where they are invalid."""
    for name, sigma in (("sigma_xy_px", sigma_xy_px), ("sigma_rgb", sigma_rgb)):
        if not 0 < sigma < float("inf"):
            raise CRFError(f"{name} is a standard deviation and must be positive and finite, got {sigma}")
    if normalization not in ("none", "symmetric"):
        raise CRFError(f"normalization must be none or symmetric, got {normalization!r}")
    return FilterOptions(size, (sigma_xy_px, sigma_xy_px), normalization, sigma_rgb=(sigma_rgb, sigma_rgb, sigma_rgb))


def _checked_mask(mask: object, maps: torch.Tensor) -> torch.Tensor:
    """The mask [N, H, W] as 0 and 1, float32; raises `ShapeError`."""
    count, _, height, width = maps.shape
    if mask is None:
        return maps.new_ones((count, height, width)).detach()
    expected = f"[{count}, {height}, {width}] of bool, or of 0 and 1, on the CPU"
    actual = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, torch.Tensor) else type(mask).__name__
    is_fitting = isinstance(mask, torch.Tensor) and list(mask.shape) == [count, height, width]
    if not isinstance(mask, torch.Tensor) or not is_fitting or mask.is_complex() or mask.device.type != "cpu":
        raise ShapeError(f"the mask must be {expected}, got {actual}", expected=expected, actual=actual)
    weights = mask.detach().to(torch.float32)
    if not ((weights == 0) | (weights == 1)).all():
        raise ShapeError(f"the mask must be {expected}, got other values", expected=expected, actual="other values")
    return weights
