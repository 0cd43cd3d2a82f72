"""The kernels compile for every architecture that is supported, and none spills registers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from needs import needs_nvcc

from atrous.gpu.toolchain import ARCHITECTURES

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check" / "ptxas.py"


@pytest.fixture(scope="module")
def ptxas() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ptxas", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@needs_nvcc
@pytest.mark.parametrize("capability", ARCHITECTURES, ids=lambda c: f"sm_{c[0]}{c[1]}")
def test_every_kernel_compiles_without_spilling(ptxas, capability):
    usage = ptxas.usage_on(capability)
    text = "".join(path.read_text(encoding="utf-8") for source in ptxas.SOURCES for path in source.files())
    names = set(re.findall(r"__global__ void ((?:crf|frame)_\w+)\(", text))
    assert {name for name in names if not name.endswith("_")} <= usage.keys()  # a macro completes the others
    assert {name: kernel for name, kernel in usage.items() if kernel["spill_bytes"] or kernel["stack_bytes"]} == {}
    # 256 threads of 64 registers are a quarter of a multiprocessor's: four blocks fit.
    assert max(kernel["registers"] for kernel in usage.values()) <= 64


def test_the_reader_of_ptxas_logs(ptxas):
    log = (
        "ptxas info    : Compiling entry function 'a' for 'sm_90'\n"
        "ptxas info    : Function properties for a\n"
        "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 33 registers, used 1 barriers, 32 bytes smem\n"
        "ptxas info    : Function properties for b\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 20 registers, used 0 barriers, 400 bytes cmem[0]\n"
    )
    assert ptxas.read_log(log) == {
        "a": {"registers": 33, "shared_bytes": 32, "stack_bytes": 8, "spill_bytes": 16},
        "b": {"registers": 20, "shared_bytes": 0, "stack_bytes": 0, "spill_bytes": 0},
    }
