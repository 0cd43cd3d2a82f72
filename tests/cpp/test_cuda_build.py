"""What can be checked of a CUDA build without a GPU: the driver's declarations, and that nvcc compiles the kernels."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import needs
import pytest
from cpp_library import ROOT, SOURCE, dependencies, run

from atrous.gpu.toolchain import ARCHITECTURES, PORTABLE


def find_header() -> Path | None:
    nvcc = shutil.which("nvcc")
    roots = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", nvcc and Path(nvcc).resolve().parents[1]]
    headers = [Path(root) / "include" / "cuda.h" for root in roots if root]
    return next((header for header in headers if header.exists()), None)


def test_the_driver_is_declared_as_in_cuda_h(tmp_path):
    header = find_header()
    if header is None:
        needs.NVCC.skip("no cuda.h")
    includes = [f"-I{SOURCE / 'include'}", f"-I{SOURCE / 'src'}", "-isystem", header.parent]
    source = ROOT / "tests" / "cpp" / "driver_types.cpp"
    run("g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *includes, source, cwd=tmp_path)


def test_it_is_for_the_gpus_of_the_python_package(tmp_path):
    script = tmp_path / "print.cmake"
    script.write_text(
        f'include("{SOURCE}/cmake/architectures.cmake")\n'
        'message(STATUS "${ATROUS_CUDA_ARCHITECTURES} ${ATROUS_DEFAULT_PORTABLE}")\n'
    )
    expected = " ".join(";".join(f"{major}{minor}" for major, minor in each) for each in (ARCHITECTURES, PORTABLE))
    assert run("cmake", "-P", script, cwd=tmp_path).strip() == f"-- {expected}"


@pytest.mark.slow
def test_nvcc_compiles_the_kernels_into_the_library(tmp_path):
    if shutil.which("nvcc") is None:
        needs.NVCC.skip()
    options = ["-DATROUS_WITH_CUDA=ON", "-DATROUS_CUDA_ARCHITECTURES=90", *dependencies()]
    run("cmake", "-G", "Ninja", "-S", SOURCE, "-B", tmp_path, *options, cwd=tmp_path)
    run("cmake", "--build", tmp_path, "--target", "atrous_kernels", cwd=tmp_path)
    for name in ("dense_crf", "frame"):
        assert (tmp_path / f"{name}.fatbin").stat().st_size > 0
    # The assembler finds them and gives each a symbol.
    compiled = "generated/images.cpp"
    run("g++", "-std=c++17", "-c", f"-I{SOURCE / 'src'}", compiled, "-o", "images.o", cwd=tmp_path)
    symbols = run("nm", "images.o", cwd=tmp_path)
    assert all(f"atrous_image_{name}" in symbols for name in ("crf", "frame"))
