"""The kernels around the network, and what a launch plan of them is made for: csrc/launch_plan.hpp.

They give the bits of their twins on the CPU, `prepare_image`, `blend_tiles`, `upsample_labels`,
`upsample_probabilities` and `Result.overlay`; inputs and logits in half precision are rounded once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ..._native import FrameSpec, Geometry, TilePlan
from ...gpu import KernelSource
from ...gpu.toolchain import EXACT, SHARED
from ...manifest import InputSpec, OutputSpec
from ..preprocess import band_colors, pixel_scaling

if TYPE_CHECKING:
    from ..backends.base import EngineLayout

KERNELS: Final = KernelSource(
    Path(__file__).parents[1] / "kernels" / "frame.cu",
    flags=EXACT,
    includes=(SHARED,),
)


def frame_spec(
    geometry: Geometry, tiles: TilePlan | None, layout: EngineLayout, inputs: InputSpec, outputs: OutputSpec
) -> FrameSpec:
    """Spec of the launch plan for a batch whose images, or tiles of them, an engine takes in one inference."""
    spec = FrameSpec(
        geometry,
        tiles,
        pixel_scaling(inputs),
        layout.input_dtype == np.float16,
        layout.output_shape,
        layout.output_dtype == np.float16,
        outputs.align_corners,
        outputs.channels.threshold,
    )
    if inputs.bands is not None:
        spec.colors = band_colors(inputs.bands, weighted=True)
    return spec
