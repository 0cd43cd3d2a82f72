"""What tests need beyond the environment of `make test`, and the table of what was not run for lack of it."""

from __future__ import annotations

import importlib.util
import io
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import Console
from rich.table import Table
from standins.driver import has_driver

from atrous.gpu.compile import find_nvcc

_PREFIX = "needs "


@dataclass(frozen=True)
class Need:
    """Something that a machine may lack; tests that need it are skipped there.

    Attributes:
        what: its name, as it reads behind "needs".
        brings: what to do about it, a command where there is one.
    """

    what: str
    brings: str

    def reason(self, detail: str = "") -> str:
        """What a skipped test says."""
        return _PREFIX + self.what + (f": {detail}" if detail else "")

    def skip(self, detail: str = "") -> NoReturn:
        """Skips the running test, with what was found instead."""
        pytest.skip(self.reason(detail))

    def unless(self, found: bool) -> pytest.MarkDecorator:
        """A mark that skips the test unless it is there."""
        return pytest.mark.skipif(not found, reason=self.reason())

    def importable(self, module: str) -> pytest.MarkDecorator:
        """A mark that skips the test unless the package is installed."""
        return self.unless(importlib.util.find_spec(module) is not None)

    def load(self, module: str) -> Any:
        """The module, or a skip of the running test or of the file."""
        return pytest.importorskip(module, reason=self.reason())


GPU = Need("an NVIDIA GPU", "make gpu-check, on a machine with one")
NO_DRIVER = Need("a machine without the CUDA driver", "make test, on such a machine")
NVCC = Need("nvcc", "the CUDA toolkit, 11.8 or newer")
PYCUDA = Need("PyCUDA", "make pycuda (needs nvcc)")
CUDA_BINDINGS = Need("cuda-bindings", "pip install cuda-bindings (Linux)")
NO_PYCUDA = Need("an environment without PyCUDA", "make clean test")
TENSORRT = Need("the bindings of TensorRT", "a network: they are fetched from PyPI")
TENSORRT_RTX = Need("TensorRT-RTX", "pip install tensorrt-rtx-cu13 (Linux on x86-64)")
CPU_ONNXRUNTIME = Need("ONNX Runtime's CPU build", "pip install --force-reinstall --no-deps onnxruntime")
OPENVINO = Need("OpenVINO", "pip install openvino")
BF16 = Need("a CPU with bfloat16", "a machine with AVX-512 BF16 or AMX")
NO_BF16 = Need("a CPU without bfloat16", "an older machine")
TORCH = Need("PyTorch", "pip install torch")
PYAV = Need("PyAV", "pip install av")
HUGGINGFACE_HUB = Need("huggingface_hub", "pip install huggingface-hub")
YAML = Need("PyYAML", "pip install pyyaml")
SCIKIT_LEARN = Need("scikit-learn's photos", "pip install scikit-learn")
PYDENSECRF = Need("pydensecrf", "pip install pydensecrf2 (Python 3.10 to 3.12)")
TOMLLIB = Need("Python 3.11", "make test PYTHON=python3.11")
BUILD_TOOLS = Need("the C++ runtime's build tools", "pip install cmake ninja nlohmann-json openvino")
BINUTILS = Need("binutils", "apt-get install binutils")
LIBPNG = Need("libpng's headers", "apt-get install libpng-dev")
CLANG = Need("clang++", "apt-get install clang")
CURL = Need("curl", "apt-get install curl")
TRITON = Need("tritonserver", "make triton (Linux on x86-64, glibc 2.35 or newer)")
KUBERNETES_VALIDATE = Need("kubernetes-validate", "pip install kubernetes-validate")
BROWSER = Need("a browser", "apt-get install chromium")
PLAYWRIGHT = Need("Playwright", "pip install playwright")
SANITIZER = Need("a compiler with AddressSanitizer", "GCC's libasan")
CAMVID = Need("CamVid", "ATROUS_CAMVID=FOLDER make test")
OTHER_ISA = Need("a CPU with more instruction sets", "a newer machine")
NO_ROOT = Need("a user without root", "make test, as an ordinary user")
DEV_FULL = Need("/dev/full", "Linux")

needs_nvcc = NVCC.unless(find_nvcc() is not None)
needs_no_driver = NO_DRIVER.unless(not has_driver())


def report_not_run(reporter: pytest.TerminalReporter, record: Path | None) -> None:
    """Prints one row for each thing that was missing: how many tests it took, why, and what brings it.

    Args:
        reporter: has the run's outcome.
        record: where to write the tests' names, a line each, to be run again as `pytest @FILE`.
    """
    skipped = reporter.stats.get("skipped", [])
    if record is not None:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text("".join(f"{report.nodeid}\n" for report in skipped), encoding="utf-8")
    counts: Counter[str] = Counter()
    details: dict[str, str] = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        what, _, detail = reason.removeprefix("Skipped: ").removeprefix(_PREFIX).partition(": ")
        counts[what] += 1
        details.setdefault(what, textwrap.shorten(detail, 80))
    if not counts:
        return
    brings = {need.what: need.brings for need in globals().values() if isinstance(need, Need)}
    table = Table("tests", "need", "found", "what brings it", title=f"not run: {counts.total()} tests", min_width=60)
    for what, count in counts.most_common():
        table.add_row(str(count), what, details[what], brings.get(what, ""))
    width = min(reporter.config.get_terminal_writer().fullwidth, 140)
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    reporter.write_line("\n" + console.file.getvalue().rstrip())
