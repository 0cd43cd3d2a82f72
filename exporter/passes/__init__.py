"""Graph passes over ONNX models, one a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import onnx_ir as ir

from .atrous import SkippedConv
from .base import run_passes
from .deinterlace import DeinterlaceAtrousConv
from .half import ConvertToHalf, RoundToHalf
from .nodes import KeptNode
from .taps import SplitAtrousConvIntoTaps

#: Pass that writes atrous convolutions in another form than `dilated`.
ATROUS_PASSES: Final[dict[str, Callable[[], ir.passes.PassBase]]] = {
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
