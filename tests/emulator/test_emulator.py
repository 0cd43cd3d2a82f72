"""The emulator itself: barriers, warp operations and half precision do what CUDA's do, and misuse is an error."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from emulator.calls import Calls
from emulator.emulated_device import BACKWARDS, FORWARDS, SHUFFLED, EmulatedDevice

from atrous.errors import DeviceError
from atrous.gpu import KernelSource

SOURCE = r"""
#include <cuda_fp16.h>
#include <cstdint>
namespace atrous {
extern "C" __global__ void reverse_block(int* values) {
    __shared__ int copy[256];
    copy[threadIdx.x] = values[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    values[blockIdx.x * blockDim.x + threadIdx.x] = copy[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void warp_operations(int* up, int* across, unsigned* peers) {
    const int lane = threadIdx.x % 32;
    int sum = lane;
    for (int distance = 1; distance < 32; distance *= 2) {
        const int below = __shfl_up_sync(0xffffffffu, sum, distance);
        if (lane >= distance) sum += below;
    }
    up[threadIdx.x] = sum;
    across[threadIdx.x] = __shfl_xor_sync(0xffffffffu, static_cast<int>(threadIdx.x), 5);
    peers[threadIdx.x] = __match_any_sync(0xffffffffu, lane % 3);
}
extern "C" __global__ void round_trip(const float* wide, unsigned short* halves, float* back, int count) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        halves[i] = __half_as_ushort(__float2half_rn(wide[i]));
        back[i] = __half2float(__ushort_as_half(halves[i]));
    }
}
extern "C" __global__ void some_miss_the_barrier(int* values) {
    if (threadIdx.x < 7) __syncthreads();
    values[threadIdx.x] = 1;
}
extern "C" __global__ void some_wait_elsewhere(int* values) {
    if (threadIdx.x % 32 == 0) {
        __syncthreads();
    } else {
        __syncwarp();
    }
    values[threadIdx.x] = 1;
}
extern "C" __global__ void racy(int* values) {
    __shared__ int last;
    last = threadIdx.x;
    __syncthreads();
    values[threadIdx.x] = last;
}
extern "C" __global__ void count_visits(int* values) {
    atomicAdd(&values[blockIdx.x * blockDim.x * blockDim.y + threadIdx.y * blockDim.x + threadIdx.x], 1);
}
}
"""


@pytest.fixture
def source(tmp_path: Path) -> KernelSource:
    path = tmp_path / "probe.cu"
    path.write_text(SOURCE)
    return KernelSource(path)


def calls(source: KernelSource, order: int = FORWARDS) -> Calls:
    return Calls(EmulatedDevice(order=order), source)


@pytest.mark.parametrize("order", [FORWARDS, BACKWARDS, SHUFFLED])
def test_barriers_separate_what_comes_before_from_what_comes_after(source, order):
    values = np.arange(512, dtype=np.int32)
    calls(source, order)("reverse_block", 2, (256, 1), values)
    assert (values == np.arange(512).reshape(2, 256)[:, ::-1].ravel()).all()


@pytest.mark.parametrize("order", [FORWARDS, BACKWARDS, SHUFFLED])
def test_warp_operations(source, order):
    up, across = np.zeros((2, 64), np.int32)
    peers = np.zeros(64, np.uint32)
    calls(source, order)("warp_operations", 1, (64, 1), up, across, peers)
    lane = np.arange(64) % 32
    assert (up == lane * (lane + 1) // 2).all()
    assert (across == (np.arange(64) ^ 5)).all()
    assert (peers == [sum(1 << other for other in range(32) if other % 3 == one % 3) for one in lane]).all()


@pytest.mark.parametrize("order", [FORWARDS, BACKWARDS, SHUFFLED])
def test_each_thread_runs_once(source, order):
    values = np.zeros(5 * 6 * 42, np.int32)
    calls(source, order)("count_visits", 5, (6, 42), values)
    assert (values == 1).all()


def test_half_precision_rounds_like_numpy(source, rng):
    exact = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    exact = exact[np.isfinite(exact)]
    ties = (exact[:-1] + exact[1:]) / 2
    scattered = np.ldexp(rng.normal(size=20000), rng.integers(-30, 20, size=20000))
    special = [
        0.0,
        -0.0,
        65504,
        65519.996,
        65520,
        -65520,
        1e30,
        np.inf,
        -np.inf,
        5.96e-8,
        2.98e-8,
        2.9802322e-8,
        2.99e-8,
        1e-30,
    ]
    wide = np.concatenate([exact, ties, scattered, special]).astype(np.float32)
    halves = np.zeros(len(wide), np.uint16)
    back = np.zeros(len(wide), np.float32)
    calls(source)("round_trip", 8, (256, 1), wide, halves, back, np.int32(len(wide)))
    with np.errstate(over="ignore"):
        expected = wide.astype(np.float16)
    assert (halves == expected.view(np.uint16)).all()
    assert (back == expected.astype(np.float32)).all()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [("some_miss_the_barrier", "barrier"), ("some_wait_elsewhere", "different barriers"), ("absent", "no kernel")],
)
def test_misuse_is_an_error_and_the_next_launch_works(source, kernel, message):
    call = calls(source)
    with pytest.raises(DeviceError, match=message):
        call(kernel, 1, (64, 1), np.zeros(64, np.int32))
    values = np.arange(64, dtype=np.int32)
    call("reverse_block", 1, (64, 1), values)
    assert (values == np.arange(64)[::-1]).all()


def test_a_warp_operation_needs_whole_warps(source):
    with pytest.raises(DeviceError, match="whole warps"):
        calls(source)("warp_operations", 1, (48, 1), *np.zeros((3, 48), np.int32))


def test_arguments_are_counted(source):
    with pytest.raises(DeviceError, match="takes 1 arguments, got 2"):
        calls(source)("racy", 1, (32, 1), np.zeros(32, np.int32), np.int32(1))


def test_orders_expose_a_race(source):
    results = set()
    for order in (FORWARDS, BACKWARDS):
        values = np.zeros(64, np.int32)
        calls(source, order)("racy", 1, (64, 1), values)
        results.add(int(values[0]))
    assert len(results) == 2


def test_memory_is_guarded_and_counted():
    device = EmulatedDevice(total_bytes=1000)
    buffer = device.allocate(600)
    assert buffer.address % 256 == 0
    assert buffer.guards_hold()
    with pytest.raises(DeviceError, match="600"):
        device.allocate(600)
    del buffer
    device.allocate(600)


@pytest.mark.parametrize("waits", [True, False])
def test_a_lazy_device_shows_a_wait_that_is_missing(waits):
    device = EmulatedDevice(is_lazy=True)
    one, other = device.stream(), device.stream()
    buffer, out, filled = device.allocate(4), np.zeros(1, np.uint32), device.event()
    device.fill(buffer, 7, one)
    filled.record(one)
    if waits:
        other.wait_for(filled)
    device.download(out, buffer, other)
    assert (out[0] == 7) == waits


def test_a_lazy_stream_reads_page_locked_memory_when_it_gets_there():
    device = EmulatedDevice(is_lazy=True)
    stream, buffer, out = device.stream(), device.allocate(4), np.zeros(1, np.uint32)
    host = device.allocate_host(4).view(np.uint32)
    for upload, expected in ((device.upload, 1), (device.upload_async, 2)):
        host[:] = 1
        upload(buffer, host, stream)
        host[:] = 2
        device.download(out, buffer, stream)
        assert out[0] == expected


def test_a_bound_device_belongs_to_its_thread():
    device, errors = EmulatedDevice(is_bound=True), []

    def use() -> None:
        try:
            device.allocate(4)
        except DeviceError as exc:
            errors.append(exc)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "make one in each thread" in str(errors[0])
