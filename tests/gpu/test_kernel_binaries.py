"""Kernels that were compiled with the package: what is in the file, and when it is taken."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import needs
import numpy as np
import pytest
from standins.gpu import open_gpu

from atrous.crf import cuda_queue
from atrous.errors import DeviceError, MissingDependencyError
from atrous.gpu import KernelSource, Launch
from atrous.gpu.kernel_binaries import Fatbin, check_kernels, find_fatbin, load_kernels
from atrous.gpu.toolchain import ARCHITECTURES, EXACT, PORTABLE
from atrous.runtime.gpu import frame

PROBE = Path(__file__).parents[1] / "emulator" / "probe.cu"
HOPPER, CUDA_13 = (9, 0), (13, 0)
PTX, MACHINE_CODE = 1, 2


def entries(fatbin: Path) -> Iterator[tuple[int, int]]:
    """(kind, architecture) of what a fatbin holds: headers with their own and the payload's size, and payloads."""
    data = fatbin.read_bytes()
    magic, version, at, nbytes = struct.unpack_from("<IHHQ", data)
    assert (magic, version, at + nbytes) == (0xBA55ED50, 1, len(data))
    while at < len(data):
        kind, header_bytes, payload_bytes, architecture = struct.unpack_from("<H2xIQ12xI", data, at)
        yield kind, architecture
        at += header_bytes + payload_bytes


def name_of(path: Path) -> str:
    """Of what the driver is given, for tests of which that is."""
    return path.suffix


@pytest.fixture
def packaged(compiled_probe, tmp_path, monkeypatch) -> KernelSource:
    """A copy to change, and a cache of its own for what is compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = shutil.copytree(compiled_probe.path.parent, tmp_path / "kernels")
    return KernelSource(folder / compiled_probe.path.name, compiled_probe.flags)


@pytest.fixture
def no_nvcc(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))


def test_it_holds_machine_code_for_each_gpu_and_ptx_for_the_others(compiled_probe):
    digits = {capability: int("".join(map(str, capability))) for capability in ARCHITECTURES}
    expected = [(MACHINE_CODE, number) for number in digits.values()] + [(PTX, digits[each]) for each in PORTABLE]
    assert sorted(entries(compiled_probe.path.with_suffix(".fatbin"))) == sorted(expected)
    fatbin = find_fatbin(compiled_probe)
    assert (fatbin.machine_code, fatbin.ptx) == (ARCHITECTURES, PORTABLE)
    assert str(fatbin).endswith("compute capabilities 7.5, 8.0, 8.6, 8.9, 9.0, 12.0, PTX for others from 9.0")


def test_it_names_no_folder_of_the_machine_that_built_it(compiled_probe):
    assert str(compiled_probe.path.parent).encode() not in compiled_probe.path.with_suffix(".fatbin").read_bytes()


@pytest.mark.usefixtures("no_nvcc")
def test_it_is_taken_without_nvcc(packaged):
    assert load_kernels(packaged, HOPPER, CUDA_13, name_of) == ".fatbin"
    assert check_kernels(packaged, HOPPER, CUDA_13).startswith("compiled with the package by CUDA ")


def test_another_include_or_flag_is_compiled(packaged, monkeypatch, tmp_path):
    other_flags = KernelSource(packaged.path, ("-ftz=true",))
    assert load_kernels(other_flags, HOPPER, CUDA_13, name_of) == ".cubin"
    assert load_kernels(packaged, HOPPER, CUDA_13, name_of) == ".fatbin"
    (packaged.path.parent / "new.cuh").touch()
    assert load_kernels(packaged, HOPPER, CUDA_13, name_of) == ".cubin"
    assert check_kernels(packaged, HOPPER, CUDA_13).startswith("compiled when first used, by nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(
        DeviceError, match=r"probe.fatbin was compiled from another version of probe.cu.*nvcc.*a wheel of"
    ):
        load_kernels(packaged, HOPPER, CUDA_13, name_of)


@pytest.mark.usefixtures("no_nvcc")
def test_without_either_the_error_says_both_ways_out(tmp_path):
    source = KernelSource(Path(shutil.copy(PROBE, tmp_path)))
    expected = r"probe.cu was not compiled with the package.*nvcc.*CUDA toolkit.*wheel of atrous.*on the CPU"
    with pytest.raises(DeviceError, match=expected):
        load_kernels(source, HOPPER, CUDA_13, name_of)
    with pytest.raises(DeviceError, match=expected):
        check_kernels(source, HOPPER, CUDA_13)


def test_what_the_driver_refuses_is_compiled(packaged, monkeypatch, tmp_path):
    def load(image: Path) -> str:
        if image.suffix == ".fatbin":
            raise DeviceError(f"loading {image.name} failed: no kernel image is available for execution on the device")
        return image.suffix

    assert load_kernels(packaged, HOPPER, CUDA_13, load) == ".cubin"
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(
        DeviceError,
        match=r"no kernel image.*by CUDA .*a newer driver may accept it\); and compiling kernels needs nvcc",
    ):
        load_kernels(packaged, HOPPER, CUDA_13, load)


def test_a_gpu_that_is_too_old():
    for ask in (check_kernels, lambda *args: load_kernels(*args, name_of)):
        with pytest.raises(DeviceError, match=r"compute capability 7.0; the kernels need 7.5 or newer"):
            ask(KernelSource(PROBE), (7, 0), CUDA_13)


def test_which_gpus_and_drivers_it_is_for():
    fatbin = Fatbin(Path("some.fatbin"), (12, 8), machine_code=((8, 0), (8, 6), (9, 0)), ptx=((9, 0),))
    for capability in ((8, 0), (8, 9), (9, 0), (10, 3), (12, 1)):
        fatbin.check(capability, (12, 0))
        fatbin.check(capability, (13, 0))
    with pytest.raises(DeviceError, match=r"is for compute capabilities 8.0, 8.6, 9.0, but the GPU has 7.5"):
        fatbin.check((7, 5), (13, 0))
    with pytest.raises(DeviceError, match=r"needs a driver for CUDA 12, but this driver is for CUDA 11.8. Install"):
        fatbin.check((9, 0), (11, 8))


@pytest.mark.parametrize("kernels", [cuda_queue.KERNELS, frame.KERNELS], ids=["crf", "frame"])
def test_the_package_is_built_with_the_flags_that_it_asks_for(kernels):
    assert kernels.flags == EXACT


@pytest.mark.gpu
def test_the_driver_takes_it(packaged, no_nvcc):  # noqa: ARG001 - so that nothing else can be loaded
    try:
        device = open_gpu()
    except (DeviceError, MissingDependencyError) as exc:
        needs.GPU.skip(str(exc))
    module = device.load(packaged)
    stream, counter, out = device.stream(), device.allocate(4), np.empty(1, np.uint32)
    device.fill(counter, 0, stream)
    module.launch(Launch("count_up", 1, (32, 1), [counter, None]), stream)
    device.download(out, counter, stream)
    assert out[0] == 1
