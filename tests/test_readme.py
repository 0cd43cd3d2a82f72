"""What the README tells people to run, run: every command and every Python block, in order, in one folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import needs
import pytest
from PIL import Image

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = needs.TOMLLIB.load("tomli")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in BLOCK.finditer(README)]


def commands(language: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for kind, text in BLOCKS if kind == language for line in text.splitlines()]
    return [line for line in lines if line]


def make_dry_run(target: str, environment: dict[str, str]) -> str:
    """The commands that `make target` would run."""
    command = ["make", "--no-print-directory", "--dry-run", target]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    # The commands must be those of this environment, whatever the caller's PATH says, and not know of an outer make.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    foreign = {"ATROUS_CAMVID", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    return {key: value for key, value in os.environ.items() if key not in foreign} | {"PATH": path}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A folder as after `make demo`: the repository's examples, the demo's output, and a photo."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    shutil.copy(str(resources.files("sklearn.datasets") / "images" / "china.jpg"), folder / "photo.jpg")
    # `make demo` sets up an environment and runs this line; the environment is the one that runs the tests.
    recipe = make_dry_run("demo", environment)
    script = recipe.strip().splitlines()[-1].replace(".venv/bin/python", shlex.quote(sys.executable))
    subprocess.run(shlex.split(script), cwd=folder, env=environment, check=True, capture_output=True)
    return folder


def test_make_targets_exist(environment: dict[str, str]) -> None:
    targets = [command.split()[1] for command in commands("") if command.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        make_dry_run(target, environment)


def test_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"pip install '\.\[([\w-]+)\]'", README)
    assert extras
    assert set(extras) <= set(project["optional-dependencies"])


@pytest.mark.slow
def test_demo_leaves_what_it_promises(folder: Path) -> None:
    out = folder / "out" / "demo"
    rows = json.loads((out / "demo.json").read_text())
    assert (out / "street.atrous" / "manifest.json").is_file()
    with Image.open(out / "china.png") as picture:
        assert picture.size[0] > 3 * 640
    assert {row["crf"] for row in rows} == {True, False}
    # Backends agree on every pixel but ties; the CRF moves edges, not regions.
    assert all(row["agreement"] > (0.8 if row["crf"] else 0.9999) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("block", [text for kind, text in BLOCKS if kind == "python"])
def test_python_block_runs(block: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_commands_run_in_order(folder: Path, environment: dict[str, str]) -> None:
    assert len(commands("console")) >= 5
    for command in commands("console"):
        done = subprocess.run(shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (folder / "segmented" / "photo.overlay.png").is_file()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
