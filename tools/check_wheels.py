"""Installs each wheel where nothing can be compiled, and segments the demo's photo with the CRF from elsewhere.

    make check-wheels               # or, in an environment with the package and the demo made:
    python tools/check_wheels.py --dist dist [PYTHON ...]

The labels must be the same on every Python. The marginals of the CRF and the instruction set must besides be those of
the native core that this checkout was built with, by another compiler: same bits, and nobody's CPU left half used.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from environments import BareEnvironment, find_pythons, photo_of_demo, use, use_here

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Checks each wheel for which there is a Python, and prints a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="interpreters; those on the path and in pyenv")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the wheels")
    parser.add_argument("--bundle", type=Path, default=ROOT / "out" / "demo" / "street.atrous", help="to be opened")
    arguments = parser.parse_args()
    bundle, photo = arguments.bundle.absolute(), photo_of_demo()
    reports = {"this checkout": use_here("cpu", bundle, photo)}
    unused = {wheel.name for wheel in arguments.dist.glob("*.whl")}
    for version, python in find_pythons(arguments.pythons).items():
        wheel = wheel_for(version, arguments.dist.absolute())
        with tempfile.TemporaryDirectory(prefix="atrous-wheel-") as folder:
            environment = BareEnvironment(python, Path(folder))
            environment.pip("install", f"{wheel}[cpu]")
            reports[wheel.name] = use(environment, "cpu", bundle, photo)
        unused.discard(wheel.name)
    print("| wheel | ran on Python | instruction set | labels | marginals |\n|---|---|---|---|---|")
    for name, report in reports.items():
        print("| " + " | ".join([name, *(report[key] for key in ("python", "isa", "labels", "marginals"))]) + " |")
    for name in sorted(unused):
        print(f"not run, for there is no Python for it here: {name}")
    compare(reports)


def wheel_for(version: str, dist: Path) -> Path:
    """The one that is built for a version of Python."""
    wheels = sorted(dist.glob(f"atrous-*-cp{version.replace('.', '')}-*.whl"))
    if len(wheels) != 1:
        raise SystemExit(f"expected one wheel for Python {version} in {dist}, found {len(wheels)}: run `make wheels`")
    return wheels[0]


def compare(reports: dict[str, dict[str, Any]]) -> None:
    """Raises SystemExit when not all say the same."""
    for key in ("isa", "labels", "marginals"):
        if len({report[key] for report in reports.values()}) > 1:
            raise SystemExit(f"{key} differ: " + json.dumps({name: report[key] for name, report in reports.items()}))
    print(f"all {len(reports)} agree")


if __name__ == "__main__":
    main()
