"""Builds the native core `atrous._native`; everything else is in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_py import build_py

# -ffp-contract=off: all instruction sets, and so all machines, round alike and give the same bits.
# -Wno-psabi: vector types never cross a call between files, so the note about their calling convention is moot.
COMPILE_ARGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Wno-psabi", "-pthread"]


def sources(pattern: str) -> list[str]:
    """The native core's files, relative to this one as setuptools wants them."""
    return sorted(
        str(path) for folder in ("calibration/csrc", "crf/csrc", "runtime/csrc") for path in Path(folder).glob(pattern)
    )


class BuildPackages(build_py):
    """Leaves this file out: the root is the package, so it would be installed as `atrous.setup`."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """All modules of the package but `setup`."""
        modules = super().find_package_modules(package, package_dir)
        return [entry for entry in modules if entry[:2] != ("atrous", "setup")]


ParallelCompile("ATROUS_BUILD_JOBS", default=0).install()
setup(
    cmdclass={"build_py": BuildPackages},
    ext_modules=[
        Pybind11Extension(
            "atrous._native",
            sources("*.cpp"),
            depends=sources("*.[hi]*"),
            include_dirs=["."],
            cxx_std=17,
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=["-pthread"],
        )
    ],
)
