"""Launch plans on a device: who owns which memory, what it holds at first, and what a sequence is replayed on."""

from __future__ import annotations

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice

from atrous import _native
from atrous.crf import CRFParams
from atrous.crf.cuda_field import FieldSpec
from atrous.crf.cuda_queue import Queue
from atrous.gpu import Device, Region, Replayer, allocate, ceil_div, prepare
from atrous.gpu.replay import Part
from atrous.runtime.gpu import frame

SPEC = FieldSpec(1, 3, 9, 11, "fp32", 2, "symmetric", CRFParams.deeplab_v2_resnet()).native


def plans(compatibility: np.ndarray) -> tuple[_native.LaunchPlan, _native.LaunchPlan]:
    """What builds the Gaussian lattice, and the rest."""
    return _native.plan_field(SPEC, (compatibility,) * 2, 2), _native.plan_field(SPEC, (compatibility,) * 2, 2, 40)


def fetched(device: Device, buffer, dtype: type) -> np.ndarray:
    out = np.empty(buffer.nbytes // np.dtype(dtype).itemsize, dtype)
    device.download(out, buffer, device.stream())
    return out


def test_memory_of_an_earlier_plan_goes_over(device):
    build, run = plans(np.full(3, -1, np.float32))
    stream = device.stream()
    first = allocate(build, device, stream)
    second = allocate(run, device, stream, first)
    assert second["gaussian.weights"] is first["gaussian.weights"]
    assert second["report"] is first["report"]
    sizes = {planned.name: planned.nbytes for planned in run.buffers if planned.use != "given"}
    assert {name: buffer.nbytes for name, buffer in second.items()} == sizes


def test_memory_of_another_size_does_not():
    device = EmulatedDevice()
    _, run = plans(np.full(3, -1, np.float32))
    larger = _native.plan_field(SPEC, (np.full(3, -1, np.float32),) * 2, 2, 41)
    first = allocate(run, device, device.stream())
    second = allocate(larger, device, device.stream(), first)
    changed = {name for name in first if second[name] is not first[name]}
    assert changed == {"gaussian.values"}


def test_given_memory_is_not_allocated(device):
    memory = allocate(plans(np.full(3, -1, np.float32))[1], device, device.stream())
    assert memory.keys().isdisjoint({"rgb", "labels", "marginals", "report_copy"})


@pytest.mark.parametrize("is_matrix", [False, True], ids=["vector", "matrix"])
def test_the_table_of_terms_holds_addresses(device, is_matrix):
    compatibility = -np.eye(3, dtype=np.float32) if is_matrix else np.array([-1, -0.5, 2], np.float32)
    memory = allocate(plans(compatibility)[1], device, device.stream())
    gaussian, bilateral = fetched(device, memory["terms"], np.int64).reshape(2, 6)
    for row, name, corners in ((gaussian, "gaussian", 3), (bilateral, "bilateral", 6)):
        pointers = [memory[f"{name}.{each}"].address for each in ("values", "pixel_vertices", "weights", "scale")]
        matrix = memory[f"{name}.matrix"].address if is_matrix else 0
        assert row.tolist() == [*pointers, matrix, corners]
    if is_matrix:
        rows = fetched(device, memory["gaussian.matrix"], np.float32).reshape(3, 4)
        assert rows.tolist() == [[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0]]
    else:
        assert fetched(device, memory["bilateral.scale"], np.float32).tolist() == [4, 2, -8, 1]


def test_a_sequence_runs_on_what_the_caller_gives(device):
    _, run = plans(np.full(3, -1, np.float32))
    stream = device.stream()
    memory = allocate(run, device, stream)
    words = np.arange(4, dtype=np.uint32)
    device.upload(memory["report"], words, stream)
    copies = [device.allocate(16), Region(device.allocate(48), 16, 16)]
    sequence = prepare(run.sequences["report"])
    for copy in copies:
        Queue(device, stream).replay(sequence, {**memory, "report_copy": copy})
        assert (fetched(device, copy, np.uint32) == words).all()


@pytest.mark.parametrize("count", [1, 256, 1025, 100_000])
def test_kernels_get_numbers_of_their_types(device, rng, count):
    """Pointers, a float and an int, in as many blocks as it takes."""
    picture, palette = (rng.integers(0, 256, size=(size, 3), dtype=np.uint8) for size in (count, 256))
    labels = rng.integers(0, 256, size=count, dtype=np.uint8)
    plan = _native.plan_overlay(count, 0.35, device.properties.multiprocessors)
    stream, memory = device.stream(), {planned.name: device.allocate(planned.nbytes) for planned in plan.buffers}
    for name, values in (("pictures", picture), ("labels", labels), ("palette", palette)):
        device.upload(memory[name], values, stream)
    Replayer(device, stream, frame.KERNELS).replay(prepare(plan.sequences["overlay"]), memory)
    expected = _native.overlay(picture[None], labels[None], palette, 0.35)
    assert (fetched(device, memory["overlay"], np.uint8) == expected.ravel()).all()


def test_the_network_is_the_callers(device):
    """It gets the memory and the stream of the plan."""
    size = (8, 8)
    spec = _native.FrameSpec(
        _native.Geometry(size, size, "none"),
        None,
        _native.PixelScaling((0, 0, 0), (1, 1, 1), False, (0, 0, 0)),
        False,
        (1, 2, 4, 4),
        True,
        False,
    )
    plan, stream, asked = _native.plan_frame(spec, 2), device.stream(), []
    memory = allocate(plan, device, stream)
    Replayer(device, stream, frame.KERNELS).replay(
        prepare(plan.sequences["inference"]), memory, lambda *each: asked.append(each)
    )
    assert asked == [(memory["input"], memory["output"], stream)]
    assert (memory["input"].nbytes, memory["output"].nbytes) == (4 * 3 * 64, 2 * 2 * 16)


def test_quotients_are_rounded_up():
    assert [ceil_div(a, 4) for a in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_part_is_the_buffer_itself_or_lies_within(device):
    memory = {"rows": device.allocate(64)}
    assert Part("rows", 0, 64).within(memory) is memory["rows"]
    assert Part("rows", 16, 8).within(memory) == Region(memory["rows"], 16, 8)
    assert Part("rows", 0, 8).within(memory).nbytes == 8
