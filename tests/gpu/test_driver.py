"""What is asked of the CUDA driver, against drivers compiled for the purpose: present, absent, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from needs import needs_no_driver
from standins.driver import compile_driver

from atrous.errors import DeviceError
from atrous.gpu.driver import find_driver

ASK = """
from atrous.errors import DeviceError
from atrous.gpu.driver import find_driver
try:
    print(find_driver())
except DeviceError as exc:
    print(exc)
"""


def ask(folder: Path, *, status: int = 0, count: int = 2) -> str:
    """What `find_driver` answers in a process that has this driver."""
    compile_driver(folder, status=status, count=count)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@needs_no_driver
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
