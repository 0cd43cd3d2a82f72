"""Installs each extra with pip alone in a new environment without compiler or CUDA, and does what it is for.

    make wheels && python tools/check_extras.py [--dist dist] [PYTHON ...]
    python tools/check_extras.py --cheap    # what CI runs: this Python, and not the extra that brings PyTorch

Needs the demo (`make demo`), and is run by the Python that has it. The extra `export` is used on that Python only:
constraints.txt has a CPU build of PyTorch for it, where another would pull several GB of CUDA. Elsewhere all but
PyTorch is installed, and pip is asked whether it has a wheel of PyTorch.
"""

from __future__ import annotations

import argparse
import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from check_wheels import wheel_for
from environments import BareEnvironment, find_pythons, photo_of_demo, use

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = ("core", "cpu", "video", "serve", "tensorrt-rtx", "export")
CHEAP = EXTRAS[:-1]
HERE = "{}.{}".format(*sys.version_info)

_NOT_COPIED = (".*", "__pycache__", "benchmarks", "build", "dist", "examples", "out", "tests", "*.egg-info")


def main() -> None:
    """Tries every extra on every Python, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="interpreters; those on the path and in pyenv")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the wheels")
    parser.add_argument("--cheap", action="store_true", help="this Python only, with the checkout, and no PyTorch")
    arguments = parser.parse_args()
    bundle, photo = ROOT / "out" / "demo" / "street.atrous", photo_of_demo()
    extras = CHEAP if arguments.cheap else EXTRAS
    pythons = find_pythons([sys.executable] if arguments.cheap else arguments.pythons)
    print("| Python | " + " | ".join(extras) + " |\n|" + "---|" * (len(extras) + 1), flush=True)
    with tempfile.TemporaryDirectory(prefix="atrous-extras-") as folder:
        work = Path(folder)
        made_here = wheel_of_checkout(work) if arguments.cheap else None
        for version, python in pythons.items():
            wheel = made_here or wheel_for(version, arguments.dist.absolute())
            cells = []
            for extra in extras:
                environment = BareEnvironment(python, work / "environment")
                cells.append(try_extra(extra, wheel, environment, version, bundle, photo))
                shutil.rmtree(work / "environment")
            print(f"| {version} | " + " | ".join(cells) + " |", flush=True)


def try_extra(extra: str, wheel: Path, environment: BareEnvironment, version: str, bundle: Path, photo: Path) -> str:
    """What was done with an extra in a new environment."""
    if extra == "export" and version != HERE:
        return resolve_export(wheel, environment)
    options = ["-c", str(CONSTRAINTS)] if extra == "export" else []
    environment.pip("install", *options, str(wheel) if extra == "core" else f"{wheel}[{extra}]")
    use(environment, extra, bundle, photo)
    return "used"


def resolve_export(wheel: Path, environment: BareEnvironment) -> str:
    """Installs what the extra names besides PyTorch, as wheels, and asks pip which wheel of PyTorch it would take.

    Raises:
        SystemExit: there is none.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        needed = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    export = [each.partition(";")[0].strip() for each in needed if each.endswith('extra == "export"')]
    (torch,) = (each for each in export if each.startswith("torch"))
    others = [each for each in export if each != torch]
    environment.pip("install", "--only-binary", ":all:", str(wheel), *others)
    versions = environment.python("-m", "pip", "index", "versions", "--only-binary", ":all:", "torch")
    newest = versions.split()[1].strip("()")
    return f"resolved: {torch} by a wheel of {newest}; {len(others)} others installed"


def wheel_of_checkout(work: Path) -> Path:
    """A wheel of the sources as they are, with the native core that is built already and no kernels: takes seconds."""
    tree = shutil.copytree(ROOT, work / "tree", ignore=shutil.ignore_patterns(*_NOT_COPIED))
    (core,) = tree.glob(f"_native*{sysconfig.get_config_var('EXT_SUFFIX')}")
    (tree / "setup.cfg").write_text("[build]\nbuild_lib = built\n", encoding="utf-8")
    (tree / "built" / "atrous").mkdir(parents=True)
    shutil.copyfile(core, tree / "built" / "atrous" / core.name)  # newer than its sources, so it is not built again
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(work)]
    without_nvcc = os.environ | {"CUDA_HOME": str(work)}
    subprocess.run([*command, str(tree)], env=without_nvcc, check=True)
    (wheel,) = work.glob("atrous-*.whl")
    return wheel


if __name__ == "__main__":
    main()
