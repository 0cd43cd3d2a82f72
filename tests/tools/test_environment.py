"""What `make` checks before it builds: everything missing is named at once, with what installs it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import needs
import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, **variables: str) -> tuple[int, str]:
    """The exit code and what was said."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CC", "CXX")} | variables
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def python_that(folder: Path, *answers: str, name: str = "python3") -> Path:
    """An interpreter like this one, except for what a program with a given word in it answers."""
    path = folder / name
    cases = "".join(f"{answer};;\n" for answer in answers)
    path.write_text(f'#!/bin/sh\ncase "$2" in\n{cases}*) exec {shlex.quote(sys.executable)} "$@";;\nesac\n')
    path.chmod(0o755)
    return path


def test_this_machine_has_all_of_it() -> None:
    assert run("tools/prerequisites", sys.executable, ROOT) == (0, "")


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    python = python_that(tmp_path, "*get_path*) echo /nowhere", "*ensurepip*) exit 1", name="python3.12")
    code, said = run("tools/prerequisites", python, ROOT)
    assert code == 1
    for text in (
        "Python's venv module",
        "Python's headers (no Python.h in /nowhere)",
        "sudo apt-get install python3.12-venv python3.12-dev",
        "sudo dnf install python3.12 python3.12-devel",
        "brew install python",
    ):
        assert text in said


def test_no_python_and_no_compiler(tmp_path: Path) -> None:
    for tool in ("sh", "cat", "mktemp", "rm", "tr", "grep", "make"):
        (tmp_path / tool).symlink_to(subprocess.check_output(["which", tool], text=True).strip())
    code, said = run("tools/prerequisites", "python3", ROOT, PATH=str(tmp_path))
    assert code == 1
    assert "Python 3.10 or newer (python3 does not run)" in said
    assert "a C++17 compiler (no c++)" in said
    assert "apt-get install python3 python3-venv python3-dev g++" in said
    assert "xcode-select --install" in said


@pytest.mark.parametrize(
    ("answers", "variables", "message"),
    [
        (("*version_info*) exit 1", "*python_version*) echo Python 3.9.18"), {}, "Python 3.9.18, and 3.10 or newer"),
        ((), {"CXX": "nonesuch -O1"}, "there is no nonesuch, which CXX names"),
        ((), {"CXX": "false"}, "false does not compile a C++17 program"),
    ],
    ids=["old", "absent", "broken"],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, answers: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    code, said = run("tools/prerequisites", python_that(tmp_path, *answers), ROOT, **variables)
    assert code == 1
    assert said.startswith("atrous cannot be built here: ")
    assert message in said


def test_a_folder_without_space(tmp_path: Path) -> None:
    df = tmp_path / "df"
    df.write_text("#!/bin/sh\nprintf 'Filesystem 1024-blocks Used Available\\nx 9 9 204800\\n'\n")
    df.chmod(0o755)
    code, said = run("tools/prerequisites", sys.executable, ROOT, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 1
    assert f"200 MiB are free in {ROOT}, and 4096 are needed" in said


@pytest.mark.skipif(os.geteuid() == 0, reason=needs.NO_ROOT.reason())
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code, said = run("tools/prerequisites", sys.executable, tmp_path)
    assert code == 1
    assert f"{tmp_path} is read-only, and the build writes into it. Copy the sources to a folder of yours" in said


class TestExistingEnvironment:
    @pytest.fixture
    def venv(self, tmp_path: Path) -> Path:
        """As `tools/environment` leaves it in this checkout."""
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(sys.executable)
        (venv / "checkout").write_text(f"{ROOT}\n")
        return venv

    def test_none_is_fine(self, tmp_path: Path) -> None:
        assert run("tools/environment", "--check", sys.executable, tmp_path / "absent") == (0, "")

    def test_that_of_this_checkout_is_fine(self, venv: Path) -> None:
        assert run("tools/environment", "--check", sys.executable, venv) == (0, "")

    def test_a_checkout_that_was_moved(self, venv: Path) -> None:
        (venv / "checkout").write_text("/elsewhere\n")
        code, said = run("tools/environment", "--check", sys.executable, venv)
        assert code == 1
        assert f"was not set up for {ROOT}, or not wholly. Run make clean" in said

    def test_a_python_that_is_gone(self, venv: Path) -> None:
        (venv / "bin" / "python").unlink()
        code, said = run("tools/environment", "--check", sys.executable, venv)
        assert code == 1
        assert "the Python that it was made from is gone. Run make clean" in said

    def test_another_python(self, venv: Path, tmp_path: Path) -> None:
        code, said = run("tools/environment", "--check", python_that(tmp_path, "*version_info*) echo 3.99"), venv)
        assert code == 1
        assert "is 3.99. Run make clean to change over" in said

    def test_pip_is_renewed_before_it_installs(self, venv: Path, tmp_path: Path) -> None:
        calls = self.pip_that(venv, f'echo "$@" >> {shlex.quote(str(tmp_path / "calls"))}; exit 0')
        assert run(*calls)[0] == 0
        first, second = (tmp_path / "calls").read_text().splitlines()
        assert first.startswith("-m pip install --quiet --upgrade pip ")
        assert second.endswith("--editable .[demo]")

    def test_no_network(self, venv: Path) -> None:
        code, said = run(*self.pip_that(venv, "echo no route to the index >&2; exit 1"))
        assert code == 1
        assert f"no route to the index\n\nSetting up {venv} failed: pip's message is above." in said
        assert "give pip a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make" in said

    @staticmethod
    def pip_that(venv: Path, does: str) -> tuple[str | Path, ...]:
        """The command that sets up an environment whose pip does something else."""
        (venv / "bin" / "python").unlink()
        python_that(venv / "bin", f"pip) {does}", name="python")
        return "tools/environment", sys.executable, venv, "demo"
