"""Prints the path of the CUDA driver's library if it finds a GPU; else says in one line that there is none, and fails.

Needs nothing but Python: it runs before anything is installed.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def main(who: str) -> None:
    """`who` speaks.

    Raises:
        SystemExit: there is no driver, or no GPU.
    """
    advice = "GPU_CHECK_REHEARSAL=1 runs it on the CPU, to try the steps themselves"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        sys.exit(f"{who}: nothing was run: this machine has no CUDA driver (libcuda.so.1), and so no GPU. {advice}")
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        sys.exit(f"{who}: nothing was run: the CUDA driver finds no GPU; see nvidia-smi. {advice}")
    mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()]
    print(next(path for path in mapped if "/libcuda.so" in path))


if __name__ == "__main__":
    main(*sys.argv[1:])
