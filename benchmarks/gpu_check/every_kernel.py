"""Plugin of pytest: the tests marked `gpu` fail as a whole if a kernel of the package was launched by none of them.

PYTHONPATH=benchmarks/gpu_check python -m pytest -p every_kernel -m gpu tests
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from atrous.crf import cuda_queue
from atrous.gpu import Device, KernelSource, Launch, Module, Stream
from atrous.gpu.cuda_device import CudaDevice
from atrous.runtime.gpu import frame

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from emulator.build import kernels_of

launched: set[str] = set()


class Recorded:
    """A module that remembers what it launches."""

    def __init__(self, module: Module) -> None:
        self._module = module

    def launch(self, launch: Launch, stream: Stream) -> None:
        """Queues one kernel."""
        launched.add(launch.kernel)
        self._module.launch(launch, stream)


def recording(load: Callable[[Device, KernelSource], Module]) -> Callable[[Device, KernelSource], Recorded]:
    """A device's `load` that makes modules `Recorded`."""
    return lambda device, source: Recorded(load(device, source))


def never_launched() -> list[str]:
    """Kernels of the package that are not in `launched`."""
    names = {name for source in (cuda_queue.KERNELS, frame.KERNELS) for name in kernels_of(source)}
    return sorted(names - launched)


def pytest_configure() -> None:
    """Records from now on."""
    CudaDevice.load = recording(CudaDevice.load)  # type: ignore[method-assign]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a session that passed otherwise."""
    if session.exitstatus == pytest.ExitCode.OK and never_launched():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names them."""
    if names := never_launched():
        terminalreporter.write_line(f"kernels that no test launched: {', '.join(names)}", red=True)
