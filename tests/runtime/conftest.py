"""Segmenters on a device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import needs
import pytest
import standins.gpu
from emulator.emulated_device import EmulatedDevice
from segmenters import Opened

from atrous.errors import DeviceError, MissingDependencyError
from atrous.gpu import Device


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=pytest.mark.gpu)])
def make_device(request: pytest.FixtureRequest) -> Callable[[], Device]:
    """Opens what runs kernels, for the calling thread: the emulator, or a GPU where there is one."""
    if request.param == "emulator":
        return lambda: EmulatedDevice(is_bound=True)
    try:
        standins.gpu.open_gpu()
    except (DeviceError, MissingDependencyError) as exc:
        needs.GPU.skip(str(exc))
    return standins.gpu.open_gpu


@pytest.fixture
def open_gpu() -> Iterator[Opened]:
    """`open_gpu(bundle)`: a segmenter on the device, closed after the test; none may leave a thread behind."""
    opened = Opened()
    yield opened
    for segmenter in opened.segmenters:
        segmenter.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("atrous-gpu")]
