"""Pictures larger than the network's maximum: overlapping tiles, blended in the coarse logits.

Tiles start at multiples of the output stride, so their coarse cells coincide with those of the whole picture. They
are blended there, with weights that fall linearly towards inner tile edges and leave out the cells next to them: a
network that looks less far than that gives the same answer as on the whole picture. The one coarse map that results
goes through the same upsampling and CRF as an untiled one. Activations never exceed one tile; what grows with the
picture is the coarse map, classes / stride² floats a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, ShapeError
from ..manifest import InputSpec, OutputSpec, Size
from .preprocess import Geometry, fit_size

#: Share of a tile that it has in common with the next one.
_OVERLAP: Final = 0.25
#: Share of the overlap, next to a tile's inner edge, that is left to the other tile: the network saw zeros beyond.
_MARGIN: Final = 0.25
#: Weight of the margin, for cells that no other tile covers.
_LEAST_WEIGHT: Final = 1e-6


@dataclass(frozen=True)
class TilePlan:
    """Tiles of one picture: all of `tile_size`, at `origins` (top, left), covering `full_size`; pixels.

    Attributes:
        stride: pixels from one coarse cell to the next.
        offset: cells beyond size // stride, 0 or 1: of the size policy.
    """

    tile_size: Size
    origins: tuple[tuple[int, int], ...]
    full_size: Size
    stride: int
    offset: int

    def coarse_size(self, size: Size) -> Size:
        """Coarse cells of a picture of `size`."""
        height, width = ((length - self.offset) // self.stride + self.offset for length in size)
        return height, width


def plan_tiles(geometry: Geometry, inputs: InputSpec, outputs: OutputSpec) -> TilePlan:
    """Cut a picture whose input would exceed `inputs.size.max` into tiles of at most that size.

    Raises:
        ShapeError: a fixed input size that does not consist of whole coarse cells cannot be tiled.
    """
    step_multiple = math.lcm(inputs.size.multiple, outputs.stride)
    offset = inputs.size.offset
    largest = tuple((length - offset) // step_multiple * step_multiple + offset for length in inputs.size.max)
    if any(length < shortest for length, shortest in zip(largest, inputs.size.min, strict=True)):
        raise ShapeError(
            f"a picture of {geometry.image_size} is larger than the network's {inputs.size.max}, and cannot be tiled: "
            f"tiles must be multiples of {step_multiple}{' plus 1' if offset else ''}. "
            "Resize the picture, or export with a dynamic size or with resize='stretch'.",
            expected=f"at most {inputs.size.max}",
            actual=str(geometry.image_size),
        )
    extents: list[tuple[int, int, list[int]]] = []
    for axis in (0, 1):
        needed = fit_size(geometry.input_size[axis], step_multiple, offset)
        extents.append(_plan_axis(needed, largest[axis], step_multiple))
    (tile_height, height, tops), (tile_width, width, lefts) = extents
    origins = tuple((top, left) for top in tops for left in lefts)
    return TilePlan((tile_height, tile_width), origins, (height, width), outputs.stride, offset)


def blend_tiles(plan: TilePlan, infer: Callable[[int, int], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Run `infer(top, left)` → logits [C, h, w] for every tile, and blend them to [C, H / stride, W / stride].

    Raises:
        EngineError: the logits of a tile are not at the manifest's stride.
    """
    stride = plan.stride
    total: NDArray[np.float32] | None = None
    weights = np.zeros(plan.coarse_size(plan.full_size), np.float32)
    expected = plan.coarse_size(plan.tile_size)
    for top, left in plan.origins:
        logits = infer(top, left)
        if logits.shape[1:] != expected:
            raise EngineError(
                f"the network answers {list(logits.shape[1:])} logits for a tile of {plan.tile_size}; expected "
                f"{list(expected)} at stride {stride}. The manifest's output stride is wrong: pack the model again."
            )
        weight = np.minimum.outer(
            _ramp(logits.shape[1], top > 0, top + plan.tile_size[0] < plan.full_size[0]),
            _ramp(logits.shape[2], left > 0, left + plan.tile_size[1] < plan.full_size[1]),
        )
        if total is None:
            total = np.zeros((logits.shape[0], *weights.shape), np.float32)
        rows = slice(top // stride, top // stride + logits.shape[1])
        columns = slice(left // stride, left // stride + logits.shape[2])
        total[:, rows, columns] += logits * weight
        weights[rows, columns] += weight
    assert total is not None, "a plan has at least one tile"  # noqa: S101 - an invariant, not a check of input
    total /= weights
    return total


def _plan_axis(needed: int, maximum: int, multiple: int) -> tuple[int, int, list[int]]:
    """(tile length, covered length, tile origins) along one axis."""
    if needed <= maximum:
        return needed, needed, [0]
    step = max(multiple, int(maximum * (1 - _OVERLAP)) // multiple * multiple)
    count = 1 + math.ceil((needed - maximum) / step)
    # The last tile ends at the end, on the grid: needed and maximum differ by a multiple.
    return maximum, needed, [min(index * step, needed - maximum) for index in range(count)]


def _ramp(length: int, has_before: bool, has_after: bool) -> NDArray[np.float32]:
    """Blending weights along one axis: rising from an inner edge at the start, falling to one at the end, 1 between."""
    overlap = max(1, int(length * _OVERLAP))
    depth = (np.arange(length, dtype=np.float32) + 0.5) / overlap
    rising = np.clip((depth - _MARGIN) / (1 - 2 * _MARGIN), _LEAST_WEIGHT, 1)
    ramp = np.ones(length, np.float32)
    if has_before:
        ramp = np.minimum(ramp, rising)
    if has_after:
        ramp = np.minimum(ramp, rising[::-1])
    return ramp
