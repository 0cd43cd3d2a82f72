"""What of `make gpu-check` can be tried without a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from emulator.emulated_device import EmulatedDevice
from gpu_scripts import FOLDER, script
from standins.onnx_device_backend import OnnxDeviceBackend

from atrous.bundle import Bundle
from atrous.crf import DenseCRF
from atrous.runtime.segmenter import Segmenter


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The check of the pipeline with a few frames instead of a thousand."""
    return script(monkeypatch, "pipeline", WARMUP=2, FRAMES=8)


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


def test_the_probe_of_the_frames_kernels_is_clean_under_the_address_sanitizer(run_sanitized):
    run_sanitized(
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        "from emulator.emulated_device import EmulatedDevice\n"
        "from probe import probe_frames\n"
        "probe_frames(EmulatedDevice(sanitize=True))\n"
        "print('clean')\n"
    )


class TestPipeline:
    @pytest.mark.parametrize("iterations", [None, 1])
    def test_it_checks_and_times(self, pipeline, tiny_bundle, iterations):
        crf = None if iterations is None else DenseCRF(iterations=iterations)
        case = pipeline.Case("onnx-device", "fp32", (40, 52), crf is not None)
        backend = OnnxDeviceBackend(tiny_bundle)
        segmenter = Segmenter(tiny_bundle, backend, crf=crf)
        expected = pipeline.expected_of(tiny_bundle, case.size, crf)
        assert pipeline.check(segmenter, expected, case)["agreement"] == 1
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
        with pytest.raises(SystemExit, match=r"wrong result.*not timed"):
            pipeline.check(segmenter, others, case)
        segmenter.close()

    def test_memory_that_is_lost_is_noticed(self, pipeline, tiny_bundle):
        class Losing(EmulatedDevice):
            def free_bytes(self) -> int:
                self.used_bytes += pipeline.MAX_GROWTH_BYTES + 1
                return super().free_bytes()

        segmenter = Segmenter(tiny_bundle, OnnxDeviceBackend(tiny_bundle))
        with pytest.raises(SystemExit, match="bytes of GPU memory are gone after 8 frames"):
            pipeline.time_frames(segmenter, Losing(), pipeline.Case("onnx-device", "fp32", (40, 52), crf=False))
        segmenter.close()

    @pytest.mark.skipif(has_driver(), reason="there is a CUDA driver")
    def test_without_a_gpu_every_engine_and_backend_says_why_not(self, pipeline, tmp_path, tiny_bundle):
        bundle = Bundle.open(Path(shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous")))
        rows = list(pipeline.run(bundle, EmulatedDevice()))
        assert {row["build"] for row in rows if "build" in row} == {"tensorrt", "tensorrt-rtx"}
        assert {"tensorrt", "onnxruntime-cuda"} <= {row["backend"] for row in rows if "backend" in row}
        assert all(row["outcome"].startswith("refused: ") for row in rows)

    def test_the_stand_in_network_takes_the_sizes_of_the_targets(self, pipeline, tmp_path):
        assert pipeline.sizes_of(pipeline.small_bundle(tmp_path)) == [(513, 513), (1024, 2048)]


def test_wheels_in_parts_are_joined(tmp_path):
    (tmp_path / "a-1-py3-none-any.whl.000").write_bytes(b"PK")
    (tmp_path / "a-1-py3-none-any.whl.001").write_bytes(b"34")
    (tmp_path / "b-1-py3-none-any.whl").write_bytes(b"whole")
    out = tmp_path / "joined"
    subprocess.run([FOLDER / "join_wheels.sh", tmp_path, out], check=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"a-1-py3-none-any.whl": b"PK34"}
