"""Reference DeepLab models: plain `nn.Module`s that map images [N, 3, H, W] to coarse logits [N, C, h, w]."""

from __future__ import annotations

from ..options import Source
from .multiscale import MultiScale
from .registry import ARCHITECTURES, Architecture, create_model, find_architecture

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "MultiScale",
    "Source",
    "create_model",
    "find_architecture",
]
