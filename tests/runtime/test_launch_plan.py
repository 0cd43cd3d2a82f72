"""The frame's launch plan by itself: what it launches fits the kernels and its memory, and reads what was written."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from band_bundles import FLOATS, GREY16, RGBN
from emulator.build import kernels_of, signatures_of
from launch_plans import assert_arguments_fit, assert_blocks_fit, covered, launches_of, slots_of

from atrous import _native
from atrous._native import Geometry, PlannedInference, PlannedLaunch
from atrous.bands import Bands
from atrous.errors import ShapeError
from atrous.gpu import planned_bytes
from atrous.manifest import Channels, InputSpec, OutputSpec, ResizePolicy, Size, SizePolicy
from atrous.runtime.backends.base import EngineLayout
from atrous.runtime.gpu.frame import KERNELS, frame_spec
from atrous.runtime.preprocess import plan_geometry
from atrous.runtime.tiling import needs_tiles, plan_tiles

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
INPUTS = InputSpec(SizePolicy((16, 16), (64, 64), (128, 128), multiple=8))
STRETCHED = replace(INPUTS, resize="stretch")
OUTPUTS = OutputSpec(8)
MANY = OutputSpec(8, align_corners=True)
LESIONS = OutputSpec(8, channels=Channels("sigmoid", 0.3))


def of_bands(bands: Bands, resize: ResizePolicy = "none") -> InputSpec:
    each = (1.0,) * len(bands.names)
    return replace(INPUTS, mean=each, std=each, scale=1.0, pad_value=each, bands=bands, resize=resize)


#: Images in a batch, their size, the policy, the types of the network's input and logits, and what those are.
CASES = {
    "one pixel": (1, (1, 1), INPUTS, SINGLE, SINGLE),
    "whole cells": (1, (64, 80), INPUTS, SINGLE, SINGLE),
    "a batch": (3, (61, 77), INPUTS, HALF, SINGLE),
    "half precision": (2, (61, 77), INPUTS, HALF, HALF),
    "stretched": (2, (90, 31), STRETCHED, SINGLE, SINGLE),
    "stretched along rows": (1, (64, 31), STRETCHED, SINGLE, SINGLE),
    "stretched along columns": (1, (300, 64), STRETCHED, HALF, SINGLE),
    "not stretched": (1, (64, 64), STRETCHED, SINGLE, SINGLE),
    "tiles": (1, (300, 500), INPUTS, SINGLE, SINGLE),
    "a batch of tiles": (2, (50, 400), INPUTS, HALF, HALF),
    "one channel": (2, (61, 77), INPUTS, SINGLE, HALF, LESIONS),
    "one channel in tiles": (2, (50, 400), INPUTS, SINGLE, HALF, LESIONS),
    "blue first": (1, (40, 40), replace(INPUTS, color_order="BGR"), SINGLE, HALF),
    "four bands": (2, (61, 77), of_bands(RGBN), SINGLE, HALF),
    "four bands, stretched": (2, (90, 31), of_bands(RGBN, "stretch"), HALF, HALF),
    "grey of 16 bits in tiles": (1, (50, 400), of_bands(GREY16), HALF, SINGLE),
    "grey of 16 bits, stretched": (1, (90, 31), of_bands(GREY16, "stretch"), SINGLE, SINGLE),
    "floats": (1, (64, 64), of_bands(FLOATS), SINGLE, SINGLE),
    "floats, stretched": (2, (90, 31), of_bands(FLOATS, "stretch"), HALF, SINGLE),
    "many classes": (1, (61, 77), INPUTS, SINGLE, SINGLE, MANY),
    "many classes in half precision": (2, (61, 77), INPUTS, SINGLE, HALF, MANY),
}


def plan_of(
    count: int,
    size: Size,
    inputs: InputSpec,
    input_dtype: np.dtype,
    output_dtype: np.dtype,
    outputs: OutputSpec = OUTPUTS,
    multiprocessors: int = 108,
) -> _native.LaunchPlan:
    geometry = plan_geometry(size, inputs)
    tiles = plan_tiles(geometry, inputs, outputs) if needs_tiles(geometry, inputs) else None
    height, width = tiles.tile_size if tiles is not None else geometry.input_size
    channels = {LESIONS: 1, MANY: 300}.get(outputs, 5)
    layout = EngineLayout(input_dtype, (count, channels, height // 8, width // 8), output_dtype)
    return _native.plan_frame(frame_spec(geometry, tiles, layout, inputs, outputs), multiprocessors)


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def plan(request: pytest.FixtureRequest) -> _native.LaunchPlan:
    return plan_of(*CASES[request.param])


@cache
def signatures() -> dict[str, list[str]]:
    return signatures_of(KERNELS)


def steps_of(plan: _native.LaunchPlan) -> list[_native.Step]:
    return [step for sequence in plan.sequences.values() for step in sequence]


def test_arguments_are_of_the_kernels_types(plan):
    assert_arguments_fit(steps_of(plan), signatures())
    assert_arguments_fit(steps_of(_native.plan_overlay(1000, 0.5, 4)), signatures())


def test_blocks_are_of_a_size_that_gpus_have(plan):
    assert_blocks_fit(steps_of(plan))


def test_slots_lie_inside_their_buffers(plan):
    sizes = {planned.name: planned.nbytes for planned in plan.buffers}
    for step in steps_of(plan):
        for slot, _ in slots_of(step, signatures()):
            assert 0 <= slot.offset < slot.offset + slot.nbytes <= sizes[slot.buffer]
            assert slot.offset % 4 == 0 or slot.buffer == "pictures"  # a tile begins at any pixel


def test_everything_that_is_read_was_written(plan):
    written = {"pictures": [(0, 1 << 40)]}
    written |= {content.buffer: [(0, 1 << 40)] for content in plan.contents}
    for name in ("preprocess", "inference", "check", "labels", "probabilities"):
        for step in plan.sequences.get(name, []):
            slots = slots_of(step, signatures())
            for slot, is_const in slots:
                assert not is_const or covered(written.get(slot.buffer, []), slot), f"{name} reads {slot.buffer}"
            for slot, is_const in slots:
                if not is_const:
                    written.setdefault(slot.buffer, []).append((slot.offset, slot.offset + slot.nbytes))
    assert written.keys() >= {"first_bad", "labels", "probabilities"}


def test_the_network_runs_once_for_each_tile():
    for name, (_, size, inputs, *_) in CASES.items():
        inferences = [
            step.work
            for step in plan_of(*CASES[name]).sequences["inference"]
            if isinstance(step.work, PlannedInference)
        ]
        geometry = plan_geometry(size, inputs)
        tiles = plan_tiles(geometry, inputs, OUTPUTS).origins if needs_tiles(geometry, inputs) else [(0, 0)]
        assert len(inferences) == len(tiles), name
        assert {(each.input.buffer, each.logits.buffer) for each in inferences} == {("input", "output")}


def test_every_kernel_is_in_a_plan_and_every_launch_is_of_a_kernel():
    plans = [plan_of(*case) for case in CASES.values()]
    steps = [step for plan in [*plans, _native.plan_overlay(9, 0.5, 1)] for step in steps_of(plan)]
    assert sorted({launch.kernel for launch in launches_of(steps)}) == kernels_of(KERNELS)


def test_the_number_of_multiprocessors_changes_grids_alone():
    for case in CASES.values():
        few, many = (plan_of(*case, multiprocessors=count) for count in (1, 200))
        assert planned_bytes(few) == planned_bytes(many)
        for one, other in zip(steps_of(few), steps_of(many), strict=True):
            if isinstance(one.work, PlannedLaunch):
                assert (one.work.kernel, one.work.block) == (other.work.kernel, other.work.block)
                assert one.work.grid <= other.work.grid


@pytest.mark.parametrize("count", [1, 256, 257, 100_000, 10_000_000])
def test_one_thread_for_four_pixels_and_blocks_to_loop(count):
    (launch,) = launches_of(steps_of(_native.plan_overlay(count, 0.5, 3)))
    blocks = _native.KERNEL_CONSTANTS["kBlocksPerMultiprocessor"] * 3
    assert (launch.grid, launch.block) == (min(-(-count // 1024), blocks), (256, 1))


@pytest.mark.parametrize(
    ("count", "size", "classes"), [(1, (30_000, 30_000), 3), (100, (3000, 3000), 3), (1, (4096, 4096), 256)]
)
def test_more_than_32_bit_indices_reach_is_refused(count, size, classes):
    layout = EngineLayout(SINGLE, (count, classes, *size), SINGLE)
    with pytest.raises(ShapeError, match=f"{count}x{size[0]}x{size[1]} pixels of .* beyond the 32-bit") as caught:
        _native.plan_frame(frame_spec(Geometry(size, size, "none"), None, layout, INPUTS, OUTPUTS), 1)
    assert caught.value.expected.startswith("at most 2130706432 values")
