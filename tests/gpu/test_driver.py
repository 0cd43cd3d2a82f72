"""What is asked of the CUDA driver, against drivers compiled for the purpose: present, absent, without a GPU."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atrous.errors import DeviceError
from atrous.gpu.driver import find_driver

WORKING = """
#include <cstddef>
#include <cstdio>
extern "C" {
int cuInit(unsigned) { return INIT; }
int cuDriverGetVersion(int* version) { *version = 12080; return 0; }
int cuDeviceGetCount(int* count) { *count = COUNT; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char* name, int bytes, int device) { std::snprintf(name, bytes, "GPU %d", device); return 0; }
int cuDeviceComputeCapability(int* major, int* minor, int device) { *major = 8; *minor = device; return 0; }
int cuDeviceTotalMem_v2(std::size_t* bytes, int) { *bytes = 1ull << 33; return 0; }
int cuGetErrorString(int, const char** text) { *text = "made to fail"; return 0; }
}
"""
ASK = """
from atrous.errors import DeviceError
from atrous.gpu.driver import find_driver
try:
    print(find_driver())
except DeviceError as exc:
    print(exc)
"""


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def ask(folder: Path, *, status: int = 0, count: int = 2) -> str:
    """What `find_driver` answers in a process that has this driver."""
    (folder / "driver.cpp").write_text(WORKING)
    flags = [f"-DINIT={status}", f"-DCOUNT={count}", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(["g++", str(folder / "driver.cpp"), *flags], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.skipif(has_driver(), reason="there is a CUDA driver")
def test_without_a_driver() -> None:
    with pytest.raises(DeviceError, match=r"there is no NVIDIA driver \(libcuda.so.1: .*or use a backend of the CPU"):
        find_driver()


def test_every_gpu_is_described(tmp_path: Path) -> None:
    gpus = [f"Gpu(name='GPU {i}', compute_capability=(8, {i}), total_bytes={2**33})" for i in range(2)]
    assert ask(tmp_path) == f"Driver(cuda=(12, 8), gpus=({', '.join(gpus)}))"


def test_a_driver_that_does_not_start(tmp_path: Path) -> None:
    assert "cuInit failed with status 100: made to fail. See nvidia-smi" in ask(tmp_path, status=100)


def test_a_driver_without_a_gpu(tmp_path: Path) -> None:
    assert "the CUDA driver sees none" in ask(tmp_path, count=0)
