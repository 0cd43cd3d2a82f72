"""Multi-scale inference: one network at several image scales, fused by the maximum (arXiv 1606.00915 §4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...arguments import check_arguments
from ...errors import ExportError
from .layers import resize_to

DEFAULT_SCALES: Final = (0.5, 0.75, 1.0)


class MultiScale(nn.Module):
    """[N, 3, H, W] → logits [N, classes, h, w] of the largest scale; exports as one ONNX graph with Resize nodes.

    Each scale's image is resized bilinearly, its logits are resized bilinearly to those of the largest scale, and the
    result is their maximum per class and position.

    Args:
        model: maps [N, 3, H, W] to coarse logits, at any size.
        scales: positive factors of the image size, 1.0 among them or not.
        align_corners: rule by which the logits are resized; the same as for upsampling the model's logits.

    Raises:
        ExportError: there is no scale, or one is not positive.
    """

    @check_arguments
    def __init__(
        self, model: nn.Module, scales: Sequence[float] = DEFAULT_SCALES, *, align_corners: bool = False
    ) -> None:
        if not scales or min(scales) <= 0:
            raise ExportError(f"multi-scale inference needs positive scales; got {tuple(scales)}. Try {DEFAULT_SCALES}")
        super().__init__()
        self.model = model
        # The largest comes first: its logits are what the others are resized to.
        self.scales = tuple(sorted(set(scales), reverse=True))
        self.align_corners = align_corners

    def forward(self, image: Tensor) -> Tensor:
        """Return the fused coarse logits."""
        first, *rest = (self.model(_rescale(image, scale)) for scale in self.scales)
        resized = [resize_to(logits, first, align_corners=self.align_corners) for logits in rest]
        fused: Tensor = reduce(torch.maximum, resized, first)
        return fused


def _rescale(image: Tensor, scale: float) -> Tensor:
    if scale == 1.0:
        return image
    return functional.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
