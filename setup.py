"""Builds the native core `atrous._native` and, where nvcc is, the GPU's kernels; the rest is in pyproject.toml."""

from __future__ import annotations

import logging
import runpy
import subprocess
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Command, setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py

# -ffp-contract=off: all instruction sets, and so all machines, round alike and give the same bits.
# -Wno-psabi: vector types never cross a call between files, so the note about their calling convention is moot.
COMPILE_ARGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Wno-psabi", "-pthread"]

# Headers of kernels that the native core includes.
KERNEL_CONSTANTS = ("crf/kernels/constants.cuh", "native/kernels/grid.cuh", "runtime/kernels/constants.cuh")
KERNELS = ("crf/kernels/dense_crf.cu", "runtime/kernels/frame.cu")


def sources(pattern: str) -> list[str]:
    """The native core's files, relative to this one as setuptools wants them."""
    folders = ("native", "calibration/csrc", "crf/csrc", "runtime/csrc")
    return sorted(str(path) for folder in folders for path in Path(folder).glob(pattern))


class BuildPackages(build_py):
    """Leaves this file out: the root is the package, so it would be installed as `atrous.setup`."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """All modules of the package but `setup`."""
        modules = super().find_package_modules(package, package_dir)
        return [entry for entry in modules if entry[:2] != ("atrous", "setup")]


class BuildKernels(Command):
    """Compiles the GPU's kernels into the package. Without nvcc it does not: then they are compiled when first used."""

    description = "compile the GPU's kernels, where nvcc is"
    user_options = [("build-lib=", "b", "folder of the built package")]  # noqa: RUF012 - what the base class expects
    editable_mode = False

    def initialize_options(self) -> None:
        """As the base class wants it."""
        self.build_lib = ""

    def finalize_options(self) -> None:
        """Builds where the rest is built."""
        self.build_lib = self.build_lib or self.get_finalized_command("build").build_lib

    def run(self) -> None:
        """Compiles, unless the sources themselves are installed: they may change."""
        if self.editable_mode:
            return
        toolchain = runpy.run_path("gpu/toolchain.py")
        nvcc = toolchain["find_nvcc"]()
        problem = "there is no nvcc in CUDA_HOME/bin or on the path" if nvcc is None else None
        for source in KERNELS if nvcc else ():
            fatbin = self._fatbin(source)
            self.announce(f"compiling {source} with {nvcc}", logging.INFO)
            try:
                options = {"flags": toolchain["EXACT"], "includes": (toolchain["SHARED"],)}
                toolchain["build_fatbin"](nvcc, Path(source).absolute(), fatbin, **options)
            except subprocess.CalledProcessError as exc:
                problem = f"{' '.join(exc.cmd)} failed:\n{exc.stdout}{exc.stderr}"
        if problem:
            self.warn(f"the GPU's kernels are not in this build, and need nvcc when they are first used: {problem}")

    def get_source_files(self) -> list[str]:
        """What a source distribution must have; the kernels are package data already."""
        return list(KERNELS)

    def get_outputs(self) -> list[str]:
        """What `run` wrote."""
        made = [self._fatbin(source) for source in KERNELS]
        return [str(path) for fatbin in made for path in (fatbin, fatbin.with_suffix(".json")) if path.exists()]

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing of it exists outside of the build."""
        return {}

    def _fatbin(self, source: str) -> Path:
        return Path(self.build_lib, "atrous", source).with_suffix(".fatbin")


class Build(build):
    """All of it."""

    sub_commands = [*build.sub_commands, ("build_kernels", None)]  # noqa: RUF012 - what the base class expects


ParallelCompile("ATROUS_BUILD_JOBS", default=0).install()
setup(
    cmdclass={"build": Build, "build_kernels": BuildKernels, "build_py": BuildPackages},
    ext_modules=[
        Pybind11Extension(
            "atrous._native",
            sources("*.cpp"),
            depends=[*sources("*.[hi]*"), *KERNEL_CONSTANTS],
            include_dirs=["."],
            cxx_std=17,
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=["-pthread"],
        )
    ],
)
