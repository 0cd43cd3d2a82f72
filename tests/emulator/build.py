"""Compiles CUDA sources for the CPU, with the shim in this folder, into a shared library."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from atrous.crf import cuda_queue
from atrous.gpu import KernelSource
from atrous.gpu.compile import find_nvcc
from atrous.gpu.toolchain import include_flags
from atrous.runtime.gpu import frame

HERE = Path(__file__).parent
# -ffp-contract=off is what nvcc's -fmad=false is. -Wno-psabi: see setup.py.
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
_KERNEL = re.compile(r'extern "C"\s+void\s+(\w+)\s*\(([^)]*)\)')


def build(source: KernelSource, *, sanitize: bool = False) -> Path:
    """The library, from a cache that knows sources, shim and flags.

    Raises:
        RuntimeError: g++ fails; the message is its log.
    """
    shim = sorted(path for path in HERE.iterdir() if path.suffix in (".h", ".cpp"))
    flags = (*FLAGS, *(SANITIZERS if sanitize else ()))
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in (*source.files(), *shim, Path(__file__)):
        digest.update(path.name.encode() + path.read_bytes())
    library = Path(tempfile.gettempdir()) / "atrous-emulator" / f"{source.path.stem}-{digest.hexdigest()[:24]}.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            registry = Path(scratch) / "registry.cpp"
            registry.write_text(_registry(source), encoding="utf-8")
            out = registry.with_suffix(".so")
            _gcc(*flags, *_includes(source), str(registry), str(HERE / "scheduler.cpp"), "-o", str(out))
            out.replace(library)  # two test processes may build the same one
    return library


def build_driver(folder: Path) -> Path:
    """A stand-in for libcuda.so.1, to be preloaded.

    PyCUDA, where it is installed, is linked with functions that driver.cpp does not have: they return
    CUDA_ERROR_NOT_SUPPORTED. cuda-bindings ask for each function by its name, and may find none.
    """
    rest = folder / "rest.cpp"
    rest.write_text("".join(f'extern "C" int {name}() {{ return 801; }}\n' for name in _missing()), encoding="utf-8")
    library = folder / "libcuda.so.1"
    _gcc(*FLAGS, "-Wl,-soname,libcuda.so.1", str(HERE / "driver.cpp"), str(rest), "-o", str(library), "-ldl")
    return library


def _missing() -> list[str]:
    pycuda = find_spec("pycuda")
    if pycuda is None:
        return []
    (client,) = Path(pycuda.origin).parent.glob("_driver*.so")
    listing = subprocess.run(["nm", "-D", "-u", str(client)], capture_output=True, text=True, check=True).stdout
    made = (HERE / "driver.cpp").read_text(encoding="utf-8")
    return sorted(name for name in set(re.findall(r"\bcu[A-Z]\w+", listing)) if f"int {name}(" not in made)


def stand_in(folder: Path) -> dict[str, str]:
    """Environment in which a GPU is found that is the emulator, with all kernels of the package and its tests.

    Args:
        folder: where to put the stand-in driver.
    """
    driver = build_driver(folder)
    sources = (cuda_queue.KERNELS, frame.KERNELS, KernelSource(HERE / "probe.cu"))
    with ThreadPoolExecutor() as pool:
        kernels = list(pool.map(build, sources))
    environment = {
        "ATROUS_EMULATED": ":".join(map(str, kernels)),
        "LD_LIBRARY_PATH": str(folder),
        "LD_PRELOAD": str(driver),
    }
    if find_nvcc() is None:
        environment |= _without_nvcc(folder)
    return environment


def _without_nvcc(folder: Path) -> dict[str, str]:
    """Environment with a compiler whose machine code is the four bytes that the stand-in driver looks at."""
    compiler = folder / "bin" / "nvcc"
    compiler.parent.mkdir(exist_ok=True)
    compiler.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "if '--version' in sys.argv: print('stand-in for nvcc')\n"
        "else: pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).write_bytes(b'\\x7fELF')\n",
        encoding="utf-8",
    )
    compiler.chmod(0o755)
    return {"CUDA_HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}


def _includes(source: KernelSource) -> tuple[str, ...]:
    shim = ("-include", str(HERE / "cuda_shim.h"), f"-I{HERE}", "-Wno-unknown-pragmas")
    return (*shim, *include_flags(source.includes))


def signatures_of(source: KernelSource) -> dict[str, list[str]]:
    """The parameters of all kernels of a translation unit, those that macros make included, as they are declared."""
    expanded = _gcc("-std=c++17", "-E", "-P", *_includes(source), str(source.path), "-x", "c++", language=True)
    return {name: [" ".join(each.split()) for each in text.split(",")] for name, text in _KERNEL.findall(expanded)}


def kernels_of(source: KernelSource) -> list[str]:
    """Names of all kernels of a translation unit."""
    return sorted(signatures_of(source))


def _registry(source: KernelSource) -> str:
    """The translation unit and, for each of its kernels, the functions by which Python calls it."""
    unit = f'#include "launch.h"\n#include "{source.path}"\nusing namespace atrous;\n'
    return unit + "".join(f"EMULATED_KERNEL({name})\n" for name in kernels_of(source))


def _gcc(*args: str, language: bool = False) -> str:
    command = ["g++", *(("-x", "c++") if language else ()), *args]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{run.stderr}")
    return run.stdout
