"""Both libraries that make the calls to a GPU, on a stand-in for the driver whose kernels run in the emulator."""

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
from standins.driver import compile_driver, has_driver
from standins.gpu import CHOICE, open_gpu

from atrous import gpu
from atrous.errors import DeviceError, MissingDependencyError
from atrous.gpu import Device
from atrous.gpu.compile import find_nvcc

TESTS = Path(__file__).parents[1]
CLASSES = {"PyCudaDevice": "pycuda", "CudaBindingsDevice": "cuda.bindings"}
NEEDED = {"PyCudaDevice": needs.PYCUDA, "CudaBindingsDevice": needs.CUDA_BINDINGS}
#: What is particular to a device: threads, contexts, memory, events, graphs, images.
OF_THE_DEVICE = ("gpu/test_device.py", "gpu/test_cuda_devices.py", "runtime/test_pipeline_threads.py")
ALL = (*OF_THE_DEVICE, "crf/test_cuda*.py", "runtime/test_frame*.py", "runtime/test_pipeline*.py")
#: The rest is the same calls through the same base, which the library that installs everywhere runs for both.
TESTS_OF = {"PyCudaDevice": OF_THE_DEVICE, "CudaBindingsDevice": ALL}


def is_installed(module: str) -> bool:
    parent = module.partition(".")[0]
    return importlib.util.find_spec(parent) is not None and importlib.util.find_spec(module) is not None


def run_on_stand_in(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **stand_in(folder), **environment}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=variables, cwd=TESTS.parent, check=False
    )


@pytest.fixture(params=list(CLASSES))
def chosen(request: pytest.FixtureRequest) -> str:
    """The name of a class whose library is installed, where no real driver is in the way."""
    if has_driver():
        needs.NO_DRIVER.skip("where there is one, the tests marked gpu use it")
    if not is_installed(CLASSES[request.param]):
        NEEDED[request.param].skip()
    return request.param


@pytest.mark.parametrize("name", CLASSES)
def test_it_is_a_device(name: str) -> None:
    device: type[Device] = getattr(gpu, name)
    protocol = {member for member in vars(Device) if not member.startswith("_")}
    assert protocol - {"properties"} <= {member for member in dir(device) if not member.startswith("_")}


@pytest.mark.slow
def test_gpu_tests_pass_on_a_stand_in_driver(chosen: str, tmp_path: Path) -> None:
    """Real libraries, emulated kernels: calls, their order, contexts and lifetimes, but no GPU."""
    # Files that only nvcc makes are needed by the last.
    patterns = [*TESTS_OF[chosen], *(["gpu/test_kernel_binaries.py"] if find_nvcc() else [])]
    tests = sorted({path for pattern in patterns for path in TESTS.glob(pattern)})
    command = ["-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *map(str, tests)]
    run = run_on_stand_in(tmp_path, *command, **{CHOICE: chosen})
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "skipped" not in run.stdout.splitlines()[-1]


LIFETIMES = """
import gc, sys, threading
sys.path.insert(0, "tests")
import numpy as np
from standins.gpu import open_gpu

device = open_gpu()
before = device.free_bytes()

def use(kept):
    own = open_gpu()
    stream = own.stream()
    buffer = own.allocate(2**20)
    own.fill(buffer, 7, stream)
    kept.append((own, stream, buffer, own.event(), own.allocate_host(64), own.capture(lambda: None, stream)))

kept = []
worker = threading.Thread(target=use, args=(kept,))
worker.start()
worker.join()
assert device.free_bytes() == before - 2**20
kept.clear()
gc.collect()
print(before - device.free_bytes())
still_there = device.allocate(64), device.stream(), device.event(), device.allocate_host(64)
"""


@needs.needs_no_driver
@needs.CUDA_BINDINGS.unless(is_installed("cuda.bindings"))
def test_cuda_bindings_free_in_any_thread_and_nothing_fails_at_the_end(tmp_path: Path) -> None:
    run = run_on_stand_in(tmp_path, "-W", "error", "-c", LIFETIMES, **{CHOICE: "CudaBindingsDevice"})
    assert (run.returncode, run.stdout, run.stderr) == (0, "0\n", "")


OPENING = """
from atrous.errors import AtrousError
from atrous.gpu import open_device
for _ in range(2):
    try:
        print(type(open_device()).__name__)
    except AtrousError as exc:
        print(type(exc).__name__, exc)
"""


@needs.needs_no_driver
@needs.PYCUDA.unless(is_installed("pycuda"))
def test_pycuda_is_the_first_choice(tmp_path: Path) -> None:
    run = run_on_stand_in(tmp_path, "-c", OPENING)
    assert (run.stdout, run.stderr) == ("PyCudaDevice\n" * 2, "")


@pytest.fixture
def broken_pycuda(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH whose PyCUDA does not load."""
    package = tmp_path / "path" / "pycuda"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "driver.py").write_text("raise ImportError('undefined symbol: cuMemAlloc_v9')")
    return package.parent


@needs.needs_no_driver
@needs.CUDA_BINDINGS.unless(is_installed("cuda.bindings"))
def test_a_pycuda_that_does_not_load_gives_way_with_a_word(tmp_path: Path, broken_pycuda: Path) -> None:
    run = run_on_stand_in(tmp_path, "-c", OPENING, PYTHONPATH=str(broken_pycuda))
    assert run.stdout == "CudaBindingsDevice\n" * 2
    assert run.stderr.count("using cuda-bindings instead of PyCUDA") == 1
    assert "undefined symbol: cuMemAlloc_v9" in run.stderr


@needs.needs_no_driver
def test_a_pycuda_that_does_not_load_is_an_error_where_nothing_takes_its_place(
    tmp_path: Path, broken_pycuda: Path
) -> None:
    (broken_pycuda / "cuda").mkdir()
    (broken_pycuda / "cuda" / "__init__.py").touch()  # hides cuda-bindings, as another package of that name would
    compile_driver(tmp_path)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(broken_pycuda)}
    run = subprocess.run([sys.executable, "-c", OPENING], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.startswith("DeviceError PyCUDA is installed but fails to load (undefined symbol")
    assert "pip install 'atrous[gpu-wheels]'" in run.stdout


@needs.needs_no_driver
def test_without_a_driver_no_library_would_help() -> None:
    with pytest.raises(DeviceError, match="there is no NVIDIA driver"):
        open_gpu()


@pytest.mark.gpu
def test_a_gpu_that_does_not_exist() -> None:
    with pytest.raises((DeviceError, MissingDependencyError), match=r"there is no GPU 99|nvidia-smi|NVIDIA driver|gpu"):
        open_gpu(99)


@pytest.mark.gpu
def test_another_thread_is_refused() -> None:
    try:
        device = open_gpu()
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
    assert "Create one in each thread" in str(errors[0])
