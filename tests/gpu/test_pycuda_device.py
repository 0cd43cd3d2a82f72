from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import needs
import pytest
from emulator.build import stand_in

from atrous.errors import DeviceError, MissingDependencyError
from atrous.gpu import Device, PyCudaDevice

TESTS = Path(__file__).parents[1]


@needs.NO_PYCUDA.unless(importlib.util.find_spec("pycuda") is None)
def test_without_pycuda_the_error_names_the_extra():
    with pytest.raises(MissingDependencyError, match=r"pip install 'atrous\[gpu\]'"):
        PyCudaDevice()


def test_a_driver_that_does_not_load_is_a_device_error(tmp_path, monkeypatch):
    """PyCUDA's extension module fails to load where there is no libcuda."""
    package = tmp_path / "pycuda"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "driver.py").write_text("raise ImportError('libcuda.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pycuda", "pycuda.driver"):  # neither found loaded, nor left behind
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    with pytest.raises(DeviceError, match=r"libcuda.so.1.*nvidia-smi"):
        PyCudaDevice()


def test_it_is_a_device():
    device: type[Device] = PyCudaDevice
    protocol = {name for name in vars(Device) if not name.startswith("_")}
    assert protocol - {"properties"} <= {name for name in vars(device) if not name.startswith("_")}


@needs.PYCUDA.importable("pycuda")
@needs.needs_no_driver  # where there is one, the tests marked gpu use it
@needs.needs_nvcc
def test_pycuda_passes_all_gpu_tests_on_a_stand_in_driver(tmp_path):
    """Real PyCUDA, emulated kernels: calls, their order, contexts and lifetimes, but no GPU."""
    tests = [
        TESTS / "gpu" / "test_device.py",
        TESTS / "gpu" / "test_images.py",
        *sorted((TESTS / "crf").glob("test_cuda*.py")),
        *sorted((TESTS / "runtime").glob("test_frame*.py")),
        *sorted((TESTS / "runtime").glob("test_pipeline*.py")),
    ]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *map(str, tests)]
    environment = {**os.environ, **stand_in(tmp_path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TESTS.parent)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "skipped" not in run.stdout.splitlines()[-1]


@pytest.mark.gpu
def test_a_gpu_that_does_not_exist():
    with pytest.raises((DeviceError, MissingDependencyError), match=r"there is no GPU 99|nvidia-smi|atrous\[gpu\]"):
        PyCudaDevice(99)


@pytest.mark.gpu
def test_another_thread_is_refused():
    try:
        device = PyCudaDevice()
    except (DeviceError, MissingDependencyError) as exc:
        needs.GPU.skip(str(exc))
    errors: list[BaseException] = []

    def use() -> None:
        try:
            device.allocate(16)
        except DeviceError as exc:
            errors.append(exc)

    worker = threading.Thread(target=use)
    worker.start()
    worker.join()
    assert "make one in each thread" in str(errors[0])
