from __future__ import annotations

import stat
from pathlib import Path

import pytest
from needs import needs_nvcc

from atrous.crf import cuda_queue
from atrous.errors import DeviceError
from atrous.gpu import KernelSource
from atrous.gpu.compile import cache_folder, compile_cubin
from atrous.gpu.toolchain import digest_of, include_flags
from atrous.runtime.gpu import frame


@pytest.fixture
def source(tmp_path: Path) -> KernelSource:
    (tmp_path / "part.cuh").write_text("#define FACTOR 2\n")
    path = tmp_path / "probe.cu"
    path.write_text('#include "part.cuh"\nextern "C" __global__ void twice(int* v) { v[threadIdx.x] *= FACTOR; }\n')
    return KernelSource(path)


@needs_nvcc
def test_compiles_once_for_a_source_its_includes_and_flags(source, tmp_path):
    folder = tmp_path / "cache"
    first = compile_cubin(source, (9, 0), folder)
    assert first.read_bytes()[:4] == b"\x7fELF"
    assert "twice" in first.with_suffix(".log").read_text()
    made = first.stat().st_mtime_ns
    assert compile_cubin(source, (9, 0), folder) == first
    assert first.stat().st_mtime_ns == made
    (source.path.parent / "part.cuh").write_text("#define FACTOR 3\n")
    second = compile_cubin(source, (9, 0), folder)
    third = compile_cubin(KernelSource(source.path, ("-fmad=false",)), (9, 0), folder)
    assert len({first, second, third}) == 3


@needs_nvcc
def test_a_failure_shows_the_compilers_log(source, tmp_path):
    source.path.write_text('extern "C" __global__ void broken() { undeclared = 1; }')
    with pytest.raises(DeviceError, match=r'(?s)probe.cu with exit code.*"undeclared" is undefined'):
        compile_cubin(source, (9, 0), tmp_path)
    with pytest.raises(DeviceError, match="sm_12"):
        compile_cubin(source, (1, 2), tmp_path)


def test_without_nvcc_the_error_says_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match=r"needs nvcc.*CUDA toolkit.*on the CPU"):
        compile_cubin(source, (9, 0), tmp_path)


def test_an_nvcc_that_does_not_run_is_an_error(source, tmp_path, monkeypatch):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match=r"(?s)exit code 3.*no licence"):
        compile_cubin(source, (9, 0), tmp_path)


def test_headers_of_other_folders_count(tmp_path):
    """What all kernels share is found by its path from the root, and a change of it compiles anew."""
    folder, shared = tmp_path / "crf" / "kernels", tmp_path / "native" / "kernels"
    for each in (folder, shared):
        each.mkdir(parents=True)
    (folder / "unit.cu").write_text('#include "native/kernels/grid.cuh"\n')
    (shared / "grid.cuh").write_text("constexpr int kThreads = 256;\n")
    source = KernelSource(folder / "unit.cu", includes=(shared,))
    assert source.files() == [folder / "unit.cu", shared / "grid.cuh"]
    assert include_flags(source.includes) == [f"-I{tmp_path}"]
    before = digest_of(source.path, includes=source.includes)
    assert before != digest_of(source.path)
    (shared / "grid.cuh").write_text("constexpr int kThreads = 128;\n")
    assert digest_of(source.path, includes=source.includes) != before


def test_the_cache_follows_the_users_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "atrous" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "atrous" / "kernels"


@pytest.mark.parametrize(
    ("kernels", "headers"), [(cuda_queue.KERNELS, set()), (frame.KERNELS, {"<cuda_fp16.h>"})], ids=["crf", "frame"]
)
def test_the_kernels_need_no_framework(kernels, headers):
    """One source for PyCUDA, nvcc and the emulator: at most the half-precision header."""
    included = {
        line.split(maxsplit=1)[1].strip()
        for path in kernels.files()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("#include <")
    }
    assert included == {*headers, "<cstdint>"}
