"""What of `make gpu-bench` can be tried without a GPU."""

from __future__ import annotations

from types import ModuleType

import pytest
from emulator.emulated_device import EmulatedDevice
from gpu_scripts import script


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The CRF's benchmark with one frame instead of dozens."""
    return script(monkeypatch, "crf", WARMUP=0, REPEATS=1)


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
