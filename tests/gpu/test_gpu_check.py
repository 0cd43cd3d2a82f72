"""What of `make gpu-check` can be tried without a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from emulator.emulated_device import EmulatedDevice

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu_check"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, as a module, with one frame instead of dozens."""
    spec = importlib.util.spec_from_file_location("gpu_bench", FOLDER / "bench.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_bench", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WARMUP", 0)
    monkeypatch.setattr(module, "REPEATS", 1)
    return module


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="there is a CUDA driver")
def test_without_a_gpu_it_says_so_in_one_line_and_fails():
    run = subprocess.run([FOLDER / "run.sh"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("gpu-check: nothing was run: this machine has no CUDA driver")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_benchmark_runs_and_describes_itself(bench, precision):
    row = bench.run(EmulatedDevice(), bench.Case(14, 22, 5, "P1", "textured", precision))
    assert row["max_abs_difference"] < 1e-2
    assert row["vertices"]["bilateral"] > 0
    assert row["memory_bytes"] > 0
    assert {"frame", "per_iteration_ms", "construction_ms", "achieved_gb_per_s"} <= row.keys()


def test_the_benchmark_covers_the_sizes_and_sets_of_the_targets(bench):
    cases = bench.CASES
    assert {(c.height, c.width, c.classes) for c in cases} == {(375, 500, 21), (513, 513, 21), (1024, 2048, 19)}
    assert {c.parameters for c in cases} == {"P1", "P2", "P3"}
    assert {c.precision for c in cases} == {"fp32", "fp16"}


def test_a_wrong_result_is_not_timed(bench):
    case = bench.Case(14, 22, 5, "P1", "plain", "fp32")
    without_updates = bench.CudaDenseCRF(iterations=0, device=EmulatedDevice())
    with pytest.raises(SystemExit, match=r"wrong result.*not timed"):
        bench.check(without_updates, case, *bench.scene(case))
