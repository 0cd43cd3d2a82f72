"""Fully connected conditional random fields: refinement of class probabilities by the colours of the image."""

from __future__ import annotations

from .compatibility import Compatibility
from .dense_crf import DenseCRF
from .feature_crf import FeatureCRF, Kernel
from .filtering import permutohedral_filter
from .kept_filters import release_memory
from .params import CRFParams

__all__ = [
    "CRFParams",
    "Compatibility",
    "DenseCRF",
    "FeatureCRF",
    "Kernel",
    "permutohedral_filter",
    "release_memory",
]
