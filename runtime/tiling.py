"""Images larger than the network's maximum: overlapping tiles, blended in the coarse logits (csrc/tiling.hpp)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .._native import Geometry, TilePlan
from .._native import blend_tiles as native_blend_tiles
from .._native import needs_tiles as native_needs_tiles
from .._native import plan_tiles as native_plan_tiles
from ..manifest import InputSpec, OutputSpec
from .preprocess import native_policy

__all__ = ["TilePlan", "blend_tiles", "needs_tiles", "plan_tiles"]


def needs_tiles(geometry: Geometry, inputs: InputSpec) -> bool:
    """True if the input would be larger than the network takes."""
    return native_needs_tiles(geometry, native_policy(inputs))


def plan_tiles(geometry: Geometry, inputs: InputSpec, outputs: OutputSpec) -> TilePlan:
    """Cut an image whose input would exceed `inputs.size.max` into tiles of at most that size.

    Raises:
        ShapeError: a fixed input size that does not consist of whole coarse cells cannot be tiled.
    """
    return native_plan_tiles(geometry, native_policy(inputs), outputs.stride)


def blend_tiles(plan: TilePlan, infer: Callable[[int, int], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Run `infer(top, left)` → logits [C, h, w] for every tile, and blend them to [C, H / stride, W / stride].

    Raises:
        EngineError: the logits of a tile are not at the manifest's stride.
    """
    return native_blend_tiles(plan, infer)
