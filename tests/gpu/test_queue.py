from __future__ import annotations

import numpy as np
import pytest
from standins.kernel_backend import PROBE

from atrous.gpu import THREADS, Device, KernelQueue, Region, ceil_div


@pytest.mark.parametrize("count", [1, THREADS, THREADS + 1, 100_000])
def test_one_thread_an_item_with_arguments_of_the_kernels_types(device: Device, rng, count):
    queue = KernelQueue(device, device.stream(), PROBE)
    values, out = rng.normal(size=count).astype(np.float32), np.empty(count, np.float32)
    source, target = device.allocate(values.nbytes), device.allocate(values.nbytes)
    device.upload(source, values, queue.stream)
    queue.each("scale", count, source, 0.5, count, target)
    device.download(out, target, queue.stream)
    assert (out == values / 2).all()


def test_blocks_are_as_many_as_asked_for_and_pointers_may_be_null(device: Device):
    queue = KernelQueue(device, device.stream(), PROBE)
    counter, out = device.allocate(8), np.empty(2, np.uint32)
    queue.fill(counter, 7)
    queue.tiles("count_up", 1, Region(counter, 4, 4), None, block=(32, 1))
    device.download(out, counter, queue.stream)
    assert (out == (7, 8)).all()


def test_quotients_are_rounded_up():
    assert [ceil_div(a, 4) for a in (0, 1, 4, 5)] == [0, 1, 1, 2]
