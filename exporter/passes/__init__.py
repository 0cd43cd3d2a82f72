"""Graph passes over ONNX models, one a file."""

from __future__ import annotations

from .base import run_passes
from .deinterlace import DeinterlaceAtrousConv, SkippedConv

__all__ = ["DeinterlaceAtrousConv", "SkippedConv", "run_passes"]
