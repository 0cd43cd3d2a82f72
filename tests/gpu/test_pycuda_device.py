from __future__ import annotations

import importlib.util
import sys
import threading

import pytest

from atrous.errors import DeviceError, MissingDependencyError
from atrous.gpu import Device, PyCudaDevice


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is not None, reason="PyCUDA is installed")
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


@pytest.mark.gpu
def test_a_gpu_that_does_not_exist():
    with pytest.raises((DeviceError, MissingDependencyError), match=r"there is no GPU 99|nvidia-smi|atrous\[gpu\]"):
        PyCudaDevice(99)


@pytest.mark.gpu
def test_another_thread_is_refused():
    try:
        device = PyCudaDevice()
    except (DeviceError, MissingDependencyError) as exc:
        pytest.skip(str(exc))
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
