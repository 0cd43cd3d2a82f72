"""Graph passes over ONNX models, one a file."""

from __future__ import annotations

from .base import run_passes
from .deinterlace import DeinterlaceAtrousConv, SkippedConv
from .half import ConvertToHalf, RoundToHalf
from .nodes import KeptNode

__all__ = ["ConvertToHalf", "DeinterlaceAtrousConv", "KeptNode", "RoundToHalf", "SkippedConv", "run_passes"]
