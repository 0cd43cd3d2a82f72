"""Fully connected conditional random fields: refinement of class probabilities by the colours of the image."""

from __future__ import annotations

from .dense_crf import DenseCRF
from .kept_filters import release_memory
from .params import CRFParams

__all__ = ["CRFParams", "DenseCRF", "release_memory"]
