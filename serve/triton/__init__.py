"""Model repositories for Triton Inference Server, in which one model takes a picture to its labels."""

from __future__ import annotations

from .options import Flavour, TritonOptions
from .repository import write_repository

__all__ = ["Flavour", "TritonOptions", "write_repository"]
