"""What building the package puts into it of the GPU's kernels: built as pip does, but for the native core."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from needs import needs_nvcc

from atrous import _native

ROOT = Path(__file__).parents[1]
NOT_BUILT = (".*", "__pycache__", "benchmarks", "build", "dist", "examples", "out", "tests", "*.egg-info", "*.so")
FATBINS = ["atrous/crf/kernels/dense_crf.fatbin", "atrous/runtime/kernels/frame.fatbin"]


@pytest.fixture
def tree(tmp_path) -> Path:
    """A checkout in which the native core is built already."""
    tree = shutil.copytree(ROOT, tmp_path / "tree", ignore=shutil.ignore_patterns(*NOT_BUILT))
    (tree / "built" / "atrous").mkdir(parents=True)
    (tree / "setup.cfg").write_text("[build]\nbuild_lib = built\n")
    core = Path(_native.__file__)
    shutil.copyfile(core, tree / "built" / "atrous" / core.name)  # newer than its sources, so it is not built again
    return tree


def build(tree: Path, hook: str = "build_wheel", cuda_home: Path | None = None) -> tuple[Path, str]:
    """The wheel that a hook of the build backend makes, and what it said."""
    script = f"from setuptools import build_meta; build_meta.{hook}('wheels')"
    environment = os.environ | ({"CUDA_HOME": str(cuda_home)} if cuda_home else {})
    run = subprocess.run([sys.executable, "-c", script], cwd=tree, env=environment, capture_output=True, text=True)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    (wheel,) = (tree / "wheels").glob("*.whl")
    return wheel, said


def fatbins(wheel: Path) -> list[str]:
    return sorted(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".fatbin"))


@needs_nvcc
@pytest.mark.slow
def test_a_wheel_brings_kernels_that_need_no_nvcc(tree, tmp_path):
    wheel, _ = build(tree)
    assert fatbins(wheel) == FATBINS
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    script = (
        "from atrous.runtime.backends.on_gpu import kernels_origin\n"
        "for capability in ((7, 5), (9, 0), (10, 0), (12, 1)):\n"
        "    print(kernels_origin(capability, (99, 0)))\n"
        "import atrous; print(atrous.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "CUDA_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    *origins, package = run.stdout.splitlines()
    assert len(origins) == 4, run.stderr
    assert len(set(origins)) == 1
    assert origins[0].startswith("compiled with the package by CUDA ")
    assert Path(package).is_relative_to(installed)


def test_without_nvcc_the_wheel_is_built_and_says_what_that_means(tree, tmp_path):
    wheel, said = build(tree, cuda_home=tmp_path)
    assert fatbins(wheel) == []
    assert "atrous/native/kernels/grid.cuh" in zipfile.ZipFile(wheel).namelist()  # then nvcc needs it later
    (line,) = (line for line in said.splitlines() if "kernels are not in this build" in line)
    assert line.endswith("need nvcc when they are first used: there is no nvcc in CUDA_HOME/bin or on the path")


def test_an_nvcc_that_fails_is_as_none_and_its_log_is_shown(tree, tmp_path):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho unsupported GNU version >&2\nexit 1\n")
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IXUSR)
    wheel, said = build(tree, cuda_home=tmp_path)
    assert fatbins(wheel) == []
    assert f"{nvcc} --list-gpu-code failed" in said
    assert "unsupported GNU version" in said


def test_an_editable_install_compiles_none_for_its_sources_change(tree):
    for path in (*tree.glob("*/csrc/*.cpp"), *tree.glob("native/*.cpp")):
        path.write_text("")  # here it would be built again, which takes minutes
    _, said = build(tree, "build_editable")
    assert "compiling" not in said
    assert "kernels are not in this build" not in said
    assert list(tree.rglob("*.fatbin")) == []
