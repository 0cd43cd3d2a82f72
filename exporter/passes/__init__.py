"""Graph passes over ONNX models, one a file."""

from __future__ import annotations

from typing import Final

from .atrous import RewriteAtrousConvs, SkippedConv
from .base import run_passes
from .deinterlace import DeinterlaceAtrousConv
from .half import ConvertToHalf, RoundToHalf
from .nodes import KeptNode
from .taps import SplitAtrousConvIntoTaps

#: Pass that writes atrous convolutions in another form than `dilated`.
ATROUS_PASSES: Final[dict[str, type[RewriteAtrousConvs]]] = {
    "deinterlaced": DeinterlaceAtrousConv,
    "taps": SplitAtrousConvIntoTaps,
}

__all__ = [
    "ATROUS_PASSES",
    "ConvertToHalf",
    "DeinterlaceAtrousConv",
    "KeptNode",
    "RoundToHalf",
    "SkippedConv",
    "SplitAtrousConvIntoTaps",
    "run_passes",
]
