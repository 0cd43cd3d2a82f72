"""CUDA drivers that only say what they are, for processes that ask."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

_SOURCE = """
#include <cstddef>
#include <cstdio>
extern "C" {
int cuInit(unsigned) { return INIT; }
int cuDriverGetVersion(int* version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int* count) { *count = COUNT; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char* name, int bytes, int device) { std::snprintf(name, bytes, "GPU %d", device); return 0; }
int cuDeviceComputeCapability(int* major, int* minor, int device) { *major = 8; *minor = device; return 0; }
int cuDeviceTotalMem_v2(std::size_t* bytes, int) { *bytes = 1ull << 33; return 0; }
int cuGetErrorString(int, const char** text) { *text = "made to fail"; return 0; }
}
"""


def has_driver() -> bool:
    """Whether this machine has a real one."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def compile_driver(folder: Path, *, status: int = 0, count: int = 2, version: int = 12080) -> None:
    """Put one into a folder, for LD_LIBRARY_PATH: its status at the start, its GPUs, the CUDA that it runs."""
    source = folder / "driver.cpp"
    source.write_text(_SOURCE)
    values = [f"-DINIT={status}", f"-DCOUNT={count}", f"-DVERSION={version}"]
    command = ["g++", str(source), *values, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(command, check=True)
