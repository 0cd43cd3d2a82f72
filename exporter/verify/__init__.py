"""Verification of artifacts: the inputs, the comparison, and all artifacts of a bundle."""

from __future__ import annotations

from .compare import FP32_TOLERANCE, TOLERANCES, Infer, Tolerance, compare, require_passed
from .inputs import photo_inputs, probe_inputs, synthetic_photo

__all__ = [
    "FP32_TOLERANCE",
    "TOLERANCES",
    "Infer",
    "Tolerance",
    "compare",
    "photo_inputs",
    "probe_inputs",
    "require_passed",
    "synthetic_photo",
]
