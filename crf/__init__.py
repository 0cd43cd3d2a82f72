"""Fully connected conditional random fields: refinement of class probabilities by the colours of the image."""

from __future__ import annotations

from .dense_crf import DenseCRF
from .params import CRFParams

__all__ = ["CRFParams", "DenseCRF"]
