"""Pythons on this machine, and environments of them in which nothing can be compiled."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
"""Those that wheels are built for; pyproject.toml names them again, for cibuildwheel."""

USES = Path(__file__).with_name("uses.py")

_TOOLS = ("c++", "g++", "gcc", "cc", "clang", "clang++", "zig", "ld", "make", "cmake", "nvcc")
_LEAD_TO_COMPILERS = ("CC", "CXX", "CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")


def find_pythons(given: Sequence[str] = ()) -> dict[str, Path]:
    """Interpreters by their version, "3.10" first.

    Args:
        given: paths or names of interpreters. Without any, every version is looked for on the path and in pyenv; those
            that are not there are named, with what brings them.

    Raises:
        SystemExit: one that is given does not run, or is of no version in `VERSIONS`; or there is none at all.
    """
    found = {}
    for name in given:
        version, executable = _ask(name) or ("", Path())
        if version not in VERSIONS:
            raise SystemExit(f"{name} is no Python of {', '.join(VERSIONS)}: {version or 'it does not run'}")
        found[version] = executable
    for version in () if given else VERSIONS:
        answers = (_ask(candidate) for candidate in _candidates(version))
        executable = next((path for answer in answers if answer and answer[0] == version for path in answer[1:]), None)
        if executable:
            found[version] = executable
            continue
        print(
            f"Python {version} is not here, and is left out: `pyenv install {version}` brings it, or "
            f"`apt-get install python{version}-dev python{version}-venv` where the system has it, or name one in "
            f'PYTHONS="/path/to/python{version} ..."',
            file=sys.stderr,
        )
    if not found:
        raise SystemExit(f"no Python of {', '.join(VERSIONS)} is here")
    return dict(sorted(found.items(), key=lambda each: VERSIONS.index(each[0])))


def _candidates(version: str) -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    in_pyenv = root.glob(f"versions/{version}.*/bin/python")
    newest_first = sorted(in_pyenv, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])])
    return [f"python{version}", *map(str, reversed(newest_first))]


def _ask(python: str) -> tuple[str, Path] | None:
    """Version and path as the interpreter says them, or None where it does not run: pyenv's shims may not."""
    script = "import sys; print('{}.{}'.format(*sys.version_info), sys.executable)"
    try:
        run = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    version, executable = run.stdout.strip().split(" ", 1)
    return version, Path(executable)


class BareEnvironment:
    """A new virtual environment whose path holds nothing but itself.

    Args:
        python: the interpreter that it is made from.
        folder: where to put it; outside the checkout, so that nothing is imported from there.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        self._bin = folder / "venv" / "bin"
        self._empty = folder / "empty"
        self._empty.mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if name not in _LEAD_TO_COMPILERS}
        self._variables = kept | {"PATH": str(self._bin)}
        _run([str(python), "-m", "venv", str(self._bin.parent)], self._empty, dict(os.environ))

    def pip(self, *arguments: str) -> str:
        """What pip prints."""
        return self.python("-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def python(self, *arguments: str) -> str:
        """What the interpreter prints, run from an empty folder.

        Raises:
            SystemExit: there is a compiler on its path, or it fails; with all that it said.
        """
        tools = [tool for tool in _TOOLS if shutil.which(tool, path=self._variables["PATH"])]
        if tools:
            raise SystemExit(f"{self._bin} should hold no compiler and has {', '.join(tools)}")
        return _run([str(self._bin / "python"), *arguments], self._empty, self._variables)


def use(environment: BareEnvironment, name: str, bundle: Path, photo: Path) -> dict[str, Any]:
    """What one of `uses.USES` reports from an environment, in which the installed package was what ran.

    Raises:
        SystemExit: it fails, or ran something else.
    """
    report = _report(environment.python("-I", str(USES), name, str(bundle), str(photo)))
    if "site-packages" not in report["package"]:
        raise SystemExit(f"expected the installed package to run, and it was {report['package']}")
    return report


def use_here(name: str, bundle: Path, photo: Path) -> dict[str, Any]:
    """The same from the environment that this runs in."""
    command = [sys.executable, "-I", str(USES), name, str(bundle), str(photo)]
    return _report(_run(command, bundle.parent, dict(os.environ)))


def photo_of_demo() -> Path:
    """The photo that `make demo` segments."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-learn, which brings the demo's photo, is not installed: `make demo` sets up .venv")
    return Path(spec.origin).parent / "datasets" / "images" / "china.jpg"


def _report(printed: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return report


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    run = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout
