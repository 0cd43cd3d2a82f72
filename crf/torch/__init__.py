"""The dense CRF as a part of training in PyTorch: a layer, a loss, and the filter itself."""

from __future__ import annotations

from ...errors import importing

with importing("export", purpose="atrous.crf.torch"):
    import torch as _torch  # noqa: F401 - what follows needs it

from .filtering import permutohedral_filter
from .layer import DenseCRFLayer
from .loss import dense_crf_loss

__all__ = ["DenseCRFLayer", "dense_crf_loss", "permutohedral_filter"]
