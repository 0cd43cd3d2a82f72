"""What every test may use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import needs
import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice
from hypothesis import HealthCheck, settings
from standins.fixtures import add_engine, flavor, stand_ins  # noqa: F401 - fixtures
from standins.gpu import open_gpu
from tiny_graphs import color_layers, local_layers, make_bundle
from torch_registry import keep_registry

from atrous.bundle import Bundle
from atrous.errors import DeviceError, MissingDependencyError
from atrous.exporter.sizes import DynamicSize
from atrous.gpu import Device, KernelSource
from atrous.gpu.compile import find_nvcc
from atrous.gpu.toolchain import EXACT, build_fatbin

# One thread of OpenMP for each test process and what it starts: there is a test process for each core already, and
# threads that wait for one another on a busy core spin. torch reads it when it is imported, which nothing above does.
# A test of threads says how many it wants.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: a busy machine is not a bug. Derandomized: a failure in CI is the same failure on a desk.
settings.register_profile(
    "atrous", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("atrous")

# A shell starts what it runs in the background with Ctrl-C ignored, and so are its children: then the tests of Ctrl-C
# would test nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Seconds of one phase of a test, beyond which a test that is not marked `slow` is named.
FAST_SECONDS = 5.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option with which CI runs later what could not be run at first."""
    parser.addoption("--record-not-run", type=Path, help="write the names of skipped tests to this file")


def pytest_collection_finish() -> None:
    """Makes exports cheaper, once the test files have loaded what they need."""
    keep_registry()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Ends the run with the slow tests that are not marked so, and with what was not run and what brings it."""
    _report_unmarked(terminalreporter)
    needs.report_not_run(terminalreporter, config.getoption("record_not_run"))


def _report_unmarked(reporter: pytest.TerminalReporter) -> None:
    """A hint only, since a busy machine is not a bug."""
    finished = reporter.stats.get("passed", []) + reporter.stats.get("failed", [])
    slow = [each for each in finished if each.duration > FAST_SECONDS and "slow" not in each.keywords]
    if slow:
        reporter.section("slow tests without the marker `slow`")
    for each in sorted(slow, key=lambda each: each.duration, reverse=True):
        reporter.line(f"{each.duration:6.1f} s {each.nodeid}")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts from the same seed in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A random network of 5 classes and stride 8 for 32×32 to 128×128; read-only: copy it before changing it."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.atrous"
    return make_bundle(path, local_layers(5), sizes=DynamicSize((32, 32), (64, 96), (128, 128), multiple=8))


@pytest.fixture(scope="session")
def color_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Every 8th pixel is its own logits: class 0 is red, 1 green, 2 blue; for 16×16 to 256×256. Read-only."""
    path = tmp_path_factory.mktemp("color") / "color.atrous"
    return make_bundle(path, color_layers(8), sizes=DynamicSize((16, 16), (64, 64), (256, 256), multiple=8))


@pytest.fixture(scope="session")
def compiled_probe(tmp_path_factory: pytest.TempPathFactory) -> KernelSource:
    """Kernels with their fatbin beside them, as in a package that was built where nvcc is; read-only."""
    nvcc = find_nvcc()
    if nvcc is None:
        needs.NVCC.skip()
    probe = Path(__file__).parent / "emulator" / "probe.cu"
    source = Path(shutil.copy(probe, tmp_path_factory.mktemp("compiled")))
    build_fatbin(nvcc, source, source.with_suffix(".fatbin"), flags=EXACT)
    return KernelSource(source, EXACT)


@pytest.fixture
def run_sanitized() -> Callable[[str], None]:
    """`run_sanitized(code)` runs Python that ends with `print("clean")` under the Address- and UB-Sanitizer.

    For an `EmulatedDevice(sanitize=True)`, which poisons guards around each buffer; tests/ is on the path.
    """
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not Path(library).is_absolute():
        needs.SANITIZER.skip()
    environment = {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin"}

    def run(code: str) -> None:
        prefix = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        done = subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, env=environment)
        assert done.stdout.strip() == "clean", done.stderr[-3000:]

    return run


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """What runs kernels: a CPU emulator, and a GPU where there is one."""
    if request.param == "emulator":
        return EmulatedDevice()
    try:
        return open_gpu()
    except (DeviceError, MissingDependencyError) as exc:
        needs.GPU.skip(str(exc))
