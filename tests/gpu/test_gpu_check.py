"""What of `make gpu-check` can be tried without a GPU."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from types import ModuleType

import needs
import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from gpu_scripts import FOLDER, script
from standins.onnx_device_backend import OnnxDeviceBackend

from atrous.bundle import Bundle
from atrous.crf import DenseCRF, cuda_queue
from atrous.gpu import Launch
from atrous.runtime.segmenter import Segmenter

pytestmark = pytest.mark.slow  # in sum

PASSED = {"status": "passed", "seconds": 1, "output": ""}


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The check of the pipeline with a few frames instead of a thousand."""
    return script(monkeypatch, "pipeline", WARMUP=1, FRAMES=4, CALLS=1)


class TestSetup:
    @needs.needs_no_driver
    @pytest.mark.parametrize("what", ["check", "bench"])
    def test_without_a_gpu_it_says_so_in_one_line_and_fails(self, what):
        environment = {key: value for key, value in os.environ.items() if key != "GPU_CHECK_REHEARSAL"}
        run = subprocess.run([FOLDER / "run.sh", what], capture_output=True, text=True, env=environment)
        assert run.returncode == 1
        assert run.stdout == ""
        assert run.stderr.startswith(f"gpu-{what}: nothing was run: this machine has no CUDA driver")
        assert "GPU_CHECK_REHEARSAL=1" in run.stderr
        assert run.stderr.count("\n") == 1

    def test_the_environment_sees_the_packages_of_the_machines_python_behind_its_own(self, tmp_path):
        """Also where that is a virtual environment itself."""
        venv = tmp_path / "venv"
        subprocess.run([FOLDER / "make_venv.sh", sys.executable, venv], check=True)
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "numpy.py").touch()
        code = "import numpy, pytest, sys; print(numpy.__file__, pytest.__file__, sys.prefix, sep='\\n')"
        said = subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.splitlines() == [str(site / "numpy.py"), pytest.__file__, str(venv)]
        subprocess.run([venv / "bin/python", "-m", "pip", "--version"], capture_output=True, check=True)

    def test_the_environment_is_kept_unless_it_came_from_another_python(self, tmp_path):
        venv = tmp_path / "venv"
        for origin, is_kept in ((None, False), (None, True), ("another", False)):
            if origin is not None:
                (venv / "origin").write_text(origin)
            subprocess.run([FOLDER / "make_venv.sh", sys.executable, venv], check=True)
            assert (venv / "kept").exists() == is_kept
            (venv / "kept").touch()

    def test_wheels_in_parts_are_joined(self, tmp_path):
        (tmp_path / "a-1-py3-none-any.whl.000").write_bytes(b"PK")
        (tmp_path / "a-1-py3-none-any.whl.001").write_bytes(b"34")
        (tmp_path / "b-1-py3-none-any.whl").write_bytes(b"whole")
        out = tmp_path / "joined"
        subprocess.run([FOLDER / "join_wheels.sh", tmp_path, out], check=True)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {"a-1-py3-none-any.whl": b"PK34"}


class TestSteps:
    @pytest.fixture
    def steps(self, monkeypatch, tmp_path) -> ModuleType:
        """On the emulator instead of a GPU, in a rehearsal."""
        monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
        return script(monkeypatch, "steps", open_device=EmulatedDevice, ROOT=tmp_path)

    def test_all_are_run_and_what_failed_is_named(self, steps, tmp_path, capsys):
        bad = {"status": "failed", "seconds": 2, "output": f"the reason, in {tmp_path}/tests"}
        absent = {"status": "not run", "output": "not installed"}
        assert steps.run_steps("check", {"good": lambda: PASSED, "bad": lambda: bad, "absent": lambda: absent}) == 1
        said = capsys.readouterr()
        assert "gpu-check: failed: bad\n" in said.err
        assert "the reason" in said.out
        assert "REHEARSAL" in said.out
        report = json.loads((tmp_path / "out/gpu_rehearsal/gpu_cpu_emulator_check.json").read_text())
        assert report["environment"]["is_rehearsal"]
        assert report["environment"]["gpu"] == "CPU emulator"
        bad["output"] = "the reason, in tests"  # no path of the machine
        assert tuple(report["steps"].values()) == (PASSED, bad, absent)

    def test_what_was_found_is_written_before_the_next_step(self, steps, tmp_path):
        def interrupted() -> dict:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            steps.run_steps("check", {"good": lambda: PASSED, "never": interrupted})
        report = json.loads((tmp_path / "out/gpu_rehearsal/gpu_cpu_emulator_check.json").read_text())
        assert report["steps"] == {"good": PASSED}

    def test_only_a_real_run_writes_among_the_results(self, steps, monkeypatch):
        assert steps.sized(1000, rehearsal=8) == 8
        monkeypatch.delenv("GPU_CHECK_REHEARSAL")
        assert steps.sized(1000, rehearsal=8) == 1000
        assert steps.results_folder() == FOLDER.parent / "results"

    @pytest.mark.parametrize(("may_be_cut", "status"), [(True, "passed, cut off"), (False, "out of time")])
    def test_a_script_that_is_cut_off_within_a_row(self, steps, monkeypatch, tmp_path, may_be_cut, status):
        monkeypatch.setattr(steps, "HERE", tmp_path)
        (tmp_path / "slow.py").write_text(
            """import time; print('{"a": 1}\\nnoise\\n{"b": ', end="", flush=True); time.sleep(60)"""
        )
        result = steps.rows_of("slow.py", 1, may_be_cut=may_be_cut)
        assert result["rows"] == [{"a": 1}]
        assert result["output"] == 'noise\n{"b": '
        assert result["status"] == status
        assert steps.is_bad(result) != may_be_cut

    def test_what_a_step_started_ends_with_its_time(self, steps, tmp_path):
        result = steps.run(["bash", "-c", f"echo started; (sleep 3; touch {tmp_path}/late) & wait"], 1)
        assert result["status"] == "out of time"
        assert result["output"] == "started\n"
        assert result["seconds"] < 3
        time.sleep(3)
        assert not (tmp_path / "late").exists()

    def test_steps_that_go_together_start_together(self, steps):
        barrier = threading.Barrier(3, timeout=20)
        started = steps.together({name: lambda: {"place": barrier.wait()} for name in "abc"})
        assert {step()["place"] for step in started.values()} == {0, 1, 2}

    def test_the_budget_is_what_setting_up_left(self, steps, monkeypatch):
        monkeypatch.setenv("GPU_CHECK_SECONDS", "30")
        budget = steps.Budget()
        assert 25 < budget.left(at_most=100) <= 30
        assert budget.left(at_most=5) == 5
        assert steps.Budget(0).left(at_most=5) == 1


class TestCheck:
    @pytest.mark.slow
    def test_every_test_marked_gpu_is_run(self, monkeypatch):
        check = script(monkeypatch, "check")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-m",
            "gpu",
            "-p",
            "no:cacheprovider",
            "tests",
        ]
        environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}  # -v undoes -q
        run = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parents[1], env=environment)
        listing = run.stdout
        files = {line.partition("::")[0] for line in listing.splitlines() if "::" in line}
        assert len(files) > 10
        assert {file for file in files if not file.startswith(check.TESTED)} == set()

    def test_a_run_of_tests_that_launches_nothing_fails_and_names_the_kernels(self, monkeypatch):
        """Where there is no GPU all tests are skipped; where there is one, those of one file are not enough."""
        check = script(monkeypatch, "check", TESTED=["tests/gpu/test_queue.py"])
        result = check.tests(check.Budget(60))
        assert result["status"] == "failed"
        assert "kernels that no test launched: crf_apply_masses, " in result["output"]

    def test_launches_are_recorded(self, monkeypatch):
        plugin = script(monkeypatch, "every_kernel")
        device = EmulatedDevice()
        before = plugin.never_launched()
        assert {"crf_scan_sums", "frame_overlay"} <= set(before)
        module = plugin.recording(EmulatedDevice.load)(device, cuda_queue.KERNELS)
        counts = device.allocate(4)
        module.launch(Launch("crf_scan_sums", 1, (256, 1), [counts, np.int32(0), counts]), device.stream())
        assert set(before) - set(plugin.never_launched()) == {"crf_scan_sums"}
        assert device.launches["crf_scan_sums"] == 1

    def test_a_rehearsal_says_that_compute_sanitizer_needs_a_gpu(self, monkeypatch):
        monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
        check = script(monkeypatch, "check")
        assert check.sanitize("memcheck", check.Budget(60))["status"] == "not run"

    @pytest.mark.parametrize(
        ("summary", "code", "status"),
        [
            ("========= ERROR SUMMARY: 0 errors", 0, "passed"),
            ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0, "passed"),
            ("========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", 0, "failed"),
            ("========= ERROR SUMMARY: 10 errors", 9, "failed"),
            ("========= Error: Device not supported", 0, "failed"),
        ],
    )
    def test_compute_sanitizer_must_say_that_all_is_clean(self, monkeypatch, tmp_path, summary, code, status):
        """A stand-in for it, which says what the real one is documented to say, and runs nothing."""
        tool = tmp_path / "compute-sanitizer"
        tool.write_text(f"#!/bin/sh\necho '{summary}'\nexit {code}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv("GPU_CHECK_REHEARSAL", raising=False)
        check = script(monkeypatch, "check")
        assert check.sanitize("racecheck", check.Budget(60))["status"] == status


class TestProbe:
    def test_it_launches_every_kernel(self, monkeypatch):
        monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
        probe, device = script(monkeypatch, "probe"), EmulatedDevice()
        probe.probe_frames(device)
        probe.probe_crf(device)
        plugin = script(monkeypatch, "every_kernel", launched=set(device.launches))
        assert plugin.never_launched() == []

    @pytest.mark.slow
    def test_its_frames_are_clean_under_the_address_sanitizer(self, run_sanitized):
        run_sanitized(
            "import os\n"
            "os.environ['GPU_CHECK_REHEARSAL'] = '1'\n"
            f"sys.path.insert(0, {str(FOLDER)!r})\n"
            "from emulator.emulated_device import EmulatedDevice\n"
            "from probe import probe_frames\n"
            "probe_frames(EmulatedDevice(sanitize=True))\n"
            "print('clean')\n"
        )


class TestMeanField:
    @pytest.fixture
    def mean_field(self, monkeypatch) -> ModuleType:
        needs.SCIKIT_LEARN.load("sklearn.datasets")
        return script(monkeypatch, "mean_field", SIZES=[(9, 13)], CLASSES=5)

    def test_every_photo_set_and_storage_is_compared(self, mean_field):
        rows = list(mean_field.rows(EmulatedDevice()))
        assert len(rows) == 2 * 3 * 2
        assert {row["gate"] for row in rows if row["storage"] == "fp32"} == {(1e-4, 0.0)}
        assert {row["gate"] for row in rows if row["storage"] == "unorm16"} == {(1e-2, 1e-4)}
        assert all(row["within_gate"] for row in rows)

    def test_a_row_beyond_its_gate_is_marked_and_fails(self, mean_field, monkeypatch, capsys):
        monkeypatch.setattr(mean_field, "open_device", EmulatedDevice)
        monkeypatch.setattr(mean_field, "GATES", {"fp32": (0.0, 0.0)})
        assert mean_field.main() == 1
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["within_gate"] for row in rows] == [row["max_abs_difference"] == 0 for row in rows]

    def test_what_is_not_a_number_is_beyond_the_gate(self, mean_field):
        image, maps = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 2), 0.5, np.float32)
        nothing = np.full_like(maps, np.nan)
        row = mean_field.compare(EmulatedDevice(), mean_field.SETS["P1"], maps, image, nothing, "fp32")
        assert not row["within_gate"]


class TestDeterminism:
    @pytest.fixture
    def determinism(self, monkeypatch) -> ModuleType:
        needs.SCIKIT_LEARN.load("sklearn.datasets")
        return script(monkeypatch, "determinism", RUNS=3, SIZE=(9, 13), OTHER_SIZES=[(5, 6), (1, 1)], CLASSES=3)

    @pytest.mark.parametrize("storage", ["fp32", "unorm16"])
    def test_runs_are_compared_while_another_thread_computes(self, determinism, storage):
        row = determinism.check(EmulatedDevice, storage)
        assert row["differing"] == 0
        assert row["runs_beside"] >= 1

    def test_runs_that_differ_are_counted(self, determinism, monkeypatch):
        """Each CRF has one iteration more than the last."""
        iterations, real = itertools.count(1), determinism.CudaDenseCRF
        monkeypatch.setattr(determinism, "CudaDenseCRF", lambda **options: real(iterations=next(iterations), **options))
        assert determinism.differing_runs(EmulatedDevice(), "fp32") == 2


class TestPipeline:
    @pytest.mark.parametrize("iterations", [None, 1])
    def test_it_checks_and_times(self, pipeline, tiny_bundle, iterations):
        crf = None if iterations is None else DenseCRF(iterations=iterations)
        case = pipeline.Case("onnx-device", "fp32", (40, 52), crf is not None)
        backend = OnnxDeviceBackend(tiny_bundle)
        segmenter = Segmenter(tiny_bundle, backend, crf=crf)
        expected = pipeline.expected_of(tiny_bundle, case.size, crf)
        assert pipeline.check(segmenter, expected, case)["agreement"] == 1
        assert pipeline.call_at_once(segmenter, case) == {"callers": 8, "calls": 8}
        row = pipeline.time_frames(segmenter, EmulatedDevice(), case)
        segmenter.close()
        assert row["growth_bytes"] == 0
        assert 0 < row["share_around_the_network"] < 1
        assert {"upload", "preprocess", "inference", "postprocess", "download"} <= row["stages"].keys()
        assert ("crf" in row["stages"]) == (crf is not None)
        assert row["latency"]["p50_ms"] <= row["latency"]["p99_ms"]

    def test_a_wrong_result_is_not_timed(self, pipeline, tiny_bundle):
        case = pipeline.Case("onnx-device", "fp32", (40, 52), crf=False)
        segmenter = Segmenter(tiny_bundle, OnnxDeviceBackend(tiny_bundle))
        others = [replace(one, labels=one.labels + 1) for one in pipeline.expected_of(tiny_bundle, case.size, None)]
        with pytest.raises(pipeline.WrongResultError, match=r"wrong result.*not timed"):
            pipeline.check(segmenter, others, case)
        segmenter.close()

    def test_memory_that_is_lost_is_noticed(self, pipeline, tiny_bundle):
        class Losing(EmulatedDevice):
            def free_bytes(self) -> int:
                self.used_bytes += pipeline.MAX_GROWTH_BYTES + 1
                return super().free_bytes()

        segmenter = Segmenter(tiny_bundle, OnnxDeviceBackend(tiny_bundle))
        with pytest.raises(pipeline.WrongResultError, match="bytes of GPU memory are gone after 4 frames"):
            pipeline.time_frames(segmenter, Losing(), pipeline.Case("onnx-device", "fp32", (40, 52), crf=False))
        segmenter.close()

    def test_labels_that_only_threads_get_are_wrong(self, pipeline, tiny_bundle):
        case = pipeline.Case("onnx-device", "fp32", (40, 52), crf=False)
        with closing(Segmenter(tiny_bundle, OnnxDeviceBackend(tiny_bundle))) as segmenter:
            first, *_ = results = [segmenter(picture) for picture in pipeline.scenes(case.size)]
            answers = chain(results, repeat(first))
            with pytest.raises(pipeline.WrongResultError, match="4 of 8 calls by 8 threads"):
                pipeline.call_at_once(lambda _picture: next(answers), case)

    def test_a_backend_that_fails_does_not_end_the_others(self, pipeline, tiny_bundle, monkeypatch):
        monkeypatch.setattr(pipeline, "sizes_of", lambda _bundle: [(40, 52)])
        failing, good = OnnxDeviceBackend(tiny_bundle), OnnxDeviceBackend(tiny_bundle)
        failing.failures = 1
        with closing(pipeline.measure(tiny_bundle, [failing, good], EmulatedDevice())) as rows:
            assert next(rows)["outcome"] == "failed: the engine refuses"
            assert next(rows)["frames"] == 4

    @needs.needs_no_driver
    def test_without_a_gpu_every_engine_and_backend_says_why_not(self, pipeline, tmp_path, tiny_bundle):
        bundle = Bundle.open(Path(shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous")))
        rows = list(pipeline.run(bundle, EmulatedDevice()))
        assert {row["build"] for row in rows if "build" in row} == {"tensorrt", "tensorrt-rtx"}
        assert {"tensorrt", "onnxruntime-cuda"} <= {row["backend"] for row in rows if "backend" in row}
        assert all(row["outcome"].startswith("refused: ") for row in rows)
        assert str(tmp_path) not in str(rows)

    def test_the_stand_in_network_takes_the_sizes_of_the_targets(self, pipeline, tmp_path):
        assert pipeline.sizes_of(pipeline.small_bundle(tmp_path)) == [(513, 513), (1024, 2048)]
