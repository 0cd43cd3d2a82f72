"""Which backend opens a bundle: what was asked for or an error, or the first that works and a word about it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import needs
import numpy as np
import onnxruntime
import pytest
from emulator.emulated_device import EmulatedDevice
from standins.driver import compile_driver

from atrous.bundle import Bundle
from atrous.errors import BundleError, DeviceError, EngineError
from atrous.gpu import KernelSource
from atrous.runtime.backends import BACKENDS, backend_status, cpu_backend, on_gpu, open_backend, tensorrt
from atrous.runtime.backends.notices import warn_once
from atrous.runtime.backends.onnxruntime_gpu import OnnxRuntimeCuda

pytestmark = pytest.mark.usefixtures("stand_ins")


@pytest.fixture(autouse=True)
def _nothing_said() -> None:
    warn_once.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated device as the GPU of this machine."""
    monkeypatch.setitem(BACKENDS, "tensorrt", tensorrt.make_spec(EmulatedDevice))


@pytest.mark.usefixtures("gpu")
@needs.needs_nvcc
class TestWithAGpu:
    def test_an_engine_that_fits_is_taken(self, tiny_bundle: Bundle, add_engine) -> None:
        backend = open_backend(add_engine(tiny_bundle, precision="fp16"))
        assert (backend.name, backend.artifact.precision) == ("tensorrt", "fp16")
        assert backend.infer(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 5, 4, 4)

    def test_one_that_does_not_is_passed_over_and_said_once(
        self, tiny_bundle: Bundle, add_engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        bundle = add_engine(tiny_bundle, compute_capability="8.9")
        names = {open_backend(bundle).name for _ in range(3)}
        assert names == {cpu_backend().name}
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.name == "atrous.runtime.backends"
        for text in ("skipping the tensorrt backend for", "built for compute capability 8.9", "atrous build"):
            assert text in record.getMessage()

    def test_asked_for_it_is_an_error(self, tiny_bundle: Bundle, add_engine) -> None:
        with pytest.raises(EngineError, match=r"no engine of .* fits here"):
            open_backend(add_engine(tiny_bundle, compute_capability="8.9"), backend="tensorrt")

    def test_a_precision_that_no_engine_has_is_found_in_the_graphs(self, tiny_bundle: Bundle, add_engine) -> None:
        backend = open_backend(add_engine(tiny_bundle, precision="fp16"), precision="fp32")
        assert (backend.artifact.kind, backend.artifact.precision) == ("onnx", "fp32")

    def test_nothing_takes_the_place_of_a_damaged_engine(self, tiny_bundle: Bundle, add_engine) -> None:
        bundle = add_engine(tiny_bundle)
        path = bundle.path_of(bundle.find(kind="engine"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(BundleError, match="SHA-256"):
            open_backend(bundle)

    def test_without_a_compiler_for_the_kernels_it_is_passed_over(
        self,
        tiny_bundle: Bundle,
        add_engine,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        tmp_path: Path,
    ) -> None:
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        assert open_backend(add_engine(tiny_bundle)).name == cpu_backend().name
        assert "compiling kernels needs nvcc" in caplog.text

    def test_kernels_that_were_compiled_with_the_package_need_none(
        self,
        tiny_bundle: Bundle,
        add_engine,
        compiled_probe: KernelSource,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        monkeypatch.setattr(on_gpu, "KERNELS", (compiled_probe,))
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        assert open_backend(add_engine(tiny_bundle)).name == "tensorrt"

    def test_a_bundle_without_engines_needs_no_word(
        self, tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert open_backend(tiny_bundle).name == cpu_backend().name
        assert caplog.records == []


@needs.needs_no_driver
class TestWithoutADriver:
    def test_an_engine_is_passed_over(self, tiny_bundle: Bundle, add_engine, caplog: pytest.LogCaptureFixture) -> None:
        assert open_backend(add_engine(tiny_bundle)).name == cpu_backend().name
        assert "there is no NVIDIA driver" in caplog.text

    def test_asked_for_it_is_an_error(self, tiny_bundle: Bundle, add_engine) -> None:
        with pytest.raises(DeviceError, match="there is no NVIDIA driver"):
            open_backend(add_engine(tiny_bundle), backend="tensorrt")

    def test_status_says_why(self) -> None:
        statuses = {status.name: status for status in backend_status()}
        assert not statuses["tensorrt"].available
        assert "tensorrt 11.4.0.106, tensorrt-rtx 1.7.1.116; no GPU can be used" in statuses["tensorrt"].detail


def _with_driver(folder: Path, script: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process that finds a driver with two GPUs."""
    compile_driver(folder)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)


@needs.needs_no_driver
@needs.needs_nvcc
def test_a_gpu_and_no_library_for_it(tiny_bundle: Bundle, add_engine, tmp_path: Path) -> None:
    """Only where a driver is does the error say what to install, and what that takes."""
    script = (
        "import importlib.util\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name in ('pycuda', 'cuda') else find_spec(name)\n"
        "import atrous, atrous.errors\n"
        "from atrous.runtime.backends import backend_status\n"
        "try:\n"
        f"    atrous.load({str(add_engine(tiny_bundle).path)!r}, backend='tensorrt')\n"
        "except atrous.errors.MissingDependencyError as exc:\n"
        "    print(exc)\n"
        "print(backend_status()[0].detail)\n"
    )
    error, detail = _with_driver(tmp_path, script).stdout.splitlines()
    assert error.startswith("running on a GPU needs 'pycuda or cuda-bindings', which is not installed.")
    assert "pip install 'atrous[gpu]' (pip compiles PyCUDA, which needs a C++ compiler" in error
    assert "pip install 'atrous[gpu-wheels]'" in error
    assert detail.endswith(error)


class TestOverwrittenOnnxRuntime:
    """The CPU's build lies over onnxruntime-gpu, which pip still lists as installed."""

    @pytest.fixture
    def listed(self, tmp_path: Path) -> Path:
        if OnnxRuntimeCuda.provider.name in onnxruntime.get_available_providers():
            needs.CPU_ONNXRUNTIME.skip()
        folder = tmp_path / "site" / "onnxruntime_gpu-1.31.1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
        return folder.parent

    def test_asked_for_it_is_an_error_with_the_command_that_mends_it(
        self, tiny_bundle: Bundle, listed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(listed)
        with pytest.raises(
            EngineError, match=r"the last one wins.*pip install --force-reinstall --no-deps onnxruntime"
        ):
            open_backend(tiny_bundle, backend="onnxruntime-cuda")

    def test_without_a_gpu_auto_needs_no_word(
        self, tiny_bundle: Bundle, listed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        if needs.has_driver():
            needs.NO_DRIVER.skip()
        monkeypatch.syspath_prepend(listed)
        assert open_backend(tiny_bundle).name == cpu_backend().name
        assert caplog.records == []

    @needs.needs_no_driver
    def test_with_a_gpu_auto_says_so_once(self, tiny_bundle: Bundle, listed: Path, tmp_path: Path) -> None:
        load = f"atrous.load({str(tiny_bundle.path)!r})\n"
        run = _with_driver(tmp_path, f"import atrous\n{load}{load}", listed)
        assert run.stderr.count("a GPU is here and ONNX Runtime does not use it: onnxruntime-gpu 1.31.1") == 1

    @needs.needs_no_driver
    def test_doctor_says_so(self, listed: Path, tmp_path: Path) -> None:
        script = "from atrous.cli.doctor import examine\nprint(examine()['gpu']['onnxruntime'])\n"
        assert (
            "pip install --force-reinstall --no-deps onnxruntime-gpu" in _with_driver(tmp_path, script, listed).stdout
        )


def test_an_unknown_name_lists_those_that_exist(tiny_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"expected auto, tensorrt, onnxruntime-cuda, .*openvino, onnxruntime$"):
        open_backend(tiny_bundle, backend="onnx")
