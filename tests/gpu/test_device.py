"""What orchestration code may rely on, whichever `Device` it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.errors import DeviceError
from atrous.gpu import Device, KernelSource, Launch, Module

PROBE = KernelSource(Path(__file__).parents[1] / "emulator" / "probe.cu")


@pytest.fixture
def module(device: Device) -> Module:
    return device.load(PROBE)


def test_properties(device):
    properties = device.properties
    assert properties.name
    assert properties.multiprocessors > 0
    assert 0 < device.free_bytes() <= properties.total_bytes


def test_upload_launch_download(device, module):
    stream = device.stream()
    values = np.arange(1000, dtype=np.float32)
    source, target = device.allocate(4000), device.allocate(4000)
    assert source.address % 256 == 0
    assert source.nbytes == 4000
    device.upload(source, values, stream)
    module.launch(Launch("scale", 2, (256, 1), [source, np.float32(2.5), np.int32(1000), target]), stream)
    out = np.empty_like(values)
    device.download(out, target, stream)
    assert (out == 2.5 * values).all()


def test_fill_and_copy(device):
    stream = device.stream()
    buffer, copy = device.allocate(40), device.allocate(40)
    device.fill(buffer, 0xCAFE0001, stream)
    device.copy_from_address(copy, buffer.address + 8, 32, stream)
    out = np.zeros(8, np.uint32)
    device.download(out, copy, stream)
    assert (out == 0xCAFE0001).all()


def test_a_graph_runs_when_it_is_replayed_and_not_before(device, module):
    stream = device.stream()
    counter = device.allocate(4)
    out = np.empty(1, np.uint32)

    def queue() -> None:
        for _ in range(3):
            module.launch(Launch("count_up", 1, (32, 1), [counter, None]), stream)

    device.fill(counter, 0, stream)
    graph = device.capture(queue, stream)
    device.download(out, counter, stream)
    assert out[0] == 0
    graph.replay(stream)
    graph.replay(stream)
    device.download(out, counter, stream)
    assert out[0] == 6


def test_what_cannot_be_recorded_is_an_error_and_leaves_the_stream_usable(device):
    stream = device.stream()
    counter = device.allocate(4)
    with pytest.raises(DeviceError):
        device.capture(lambda: device.download(np.empty(1, np.uint32), counter, stream), stream)
    device.fill(counter, 5, stream)
    out = np.empty(1, np.uint32)
    device.download(out, counter, stream)
    assert out[0] == 5


def test_events_measure_time(device):
    stream = device.stream()
    start, end = device.record(stream), device.record(stream)
    assert end.elapsed_ms(start) >= 0


def test_a_stream_waits_for_another(device):
    first, second = device.stream(), device.stream()
    buffer = device.allocate(2**26)
    for word in range(20):  # long enough that the second stream would overtake
        device.fill(buffer, word, first)
    second.wait_for(device.record(first))
    copy = device.allocate(4)
    device.copy_from_address(copy, buffer.address + 2**26 - 4, 4, second)
    out = np.empty(1, np.uint32)
    device.download(out, copy, second)
    assert out[0] == 19


def test_an_event_moves_with_each_recording_and_times_what_a_graph_does(device, module):
    stream = device.stream()
    counter = device.allocate(4)
    before, after = device.event(), device.event()

    def queue() -> None:
        before.record(stream)
        module.launch(Launch("count_up", 1, (32, 1), [counter, None]), stream)
        after.record(stream)

    device.fill(counter, 0, stream)
    graph = device.capture(queue, stream)
    end = device.event()
    for _ in range(2):
        graph.replay(stream)
        end.record(stream)
        end.synchronize()
        assert after.elapsed_ms(before) >= 0
        assert end.elapsed_ms(after) >= 0


def test_copies_of_page_locked_memory_on_streams_that_wait_for_each_other(device, module):
    copying, computing = device.stream(), device.stream()
    there, back = (device.allocate_host(4000) for _ in range(2))
    there.view(np.float32)[:] = np.arange(1000)
    source, target = device.allocate(4000), device.allocate(4000)
    arrived, done = device.event(), device.event()
    device.upload_async(source, there, copying)
    arrived.record(copying)
    computing.wait_for(arrived)
    module.launch(Launch("scale", 2, (256, 1), [source, np.float32(2), np.int32(1000), target]), computing)
    done.record(computing)
    copying.wait_for(done)
    device.download_async(back, target, copying)
    copying.synchronize()
    assert (back.view(np.float32) == 2 * np.arange(1000)).all()


def test_errors_of_the_device(device, module):
    with pytest.raises(DeviceError):
        device.allocate(2**60)
    with pytest.raises(DeviceError, match="absent"):
        module.launch(Launch("absent", 1, (32, 1), []), device.stream())


def test_memory_is_freed_with_its_last_reference(device):
    device.allocate(2**20)
    before = device.free_bytes()
    buffer = device.allocate(2**26)
    assert device.free_bytes() <= before - 2**26
    del buffer
    assert device.free_bytes() >= before
