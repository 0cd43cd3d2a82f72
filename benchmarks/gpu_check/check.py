"""Everything that needs a GPU, in one go: environment, tests, pipeline, compute-sanitizer, CRF; one JSON file.

Exit code 0 only if everything that ran passed, and the tests, the pipeline and the CRF's benchmark ran.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atrous.errors import DeviceError, MissingDependencyError
from atrous.gpu import PyCudaDevice
from atrous.gpu.compile import find_nvcc, nvcc_version

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE.parent / "results"
BUDGET_S = 380.0
TESTED = (
    "tests/gpu",
    "tests/crf",
    "tests/runtime/test_frame.py",
    "tests/runtime/test_pipeline.py",
    "tests/runtime/backends/test_tensorrt_gpu.py",
)
PACKAGES = ("atrous", "numpy", "pycuda", "tensorrt", "tensorrt-rtx-cu13", "onnxruntime", "onnxruntime-gpu")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")


class Budget:
    """The time that is left of `BUDGET_S`."""

    def __init__(self) -> None:
        self._end = time.monotonic() + BUDGET_S

    def left(self, at_most: float) -> float:
        """Seconds for the next step; at least one, so that what is out of time says so."""
        return max(1.0, min(at_most, self._end - time.monotonic()))


def run(command: list[str], timeout_s: float, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Runs one step and keeps the end of what it said."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(env or {})},
        )
        status, output = ("passed" if done.returncode == 0 else "failed"), done.stdout
    except subprocess.TimeoutExpired as exc:
        status = "out of time"
        output = exc.stdout.decode() if isinstance(exc.stdout, bytes) else (exc.stdout or "")
    return {"status": status, "seconds": round(time.monotonic() - start, 1), "output": output}


def version_of(package: str) -> str:
    """Its version, or that it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def environment() -> dict[str, Any]:
    """What the results depend on.

    Raises:
        DeviceError, MissingDependencyError: there is no GPU to use.
    """
    properties = PyCudaDevice().properties
    smi = shutil.which("nvidia-smi")
    query = [smi, "--query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit", "--format=csv,noheader"]
    commit = run(["git", "describe", "--always", "--dirty"], 10) if shutil.which("git") else {"status": "not run"}
    return {
        "gpu": properties.name,
        "compute_capability": ".".join(map(str, properties.compute_capability)),
        "multiprocessors": properties.multiprocessors,
        "memory_bytes": properties.total_bytes,
        "nvidia_smi": run(query, 20)["output"].strip() if smi else "not installed",
        "nvcc": nvcc_version().strip().splitlines()[-1] if find_nvcc() else "not installed",
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in PACKAGES},
        "commit": commit["output"].strip() if commit["status"] == "passed" else "unknown",
    }


def sanitize(tool: str, budget: Budget) -> dict[str, Any]:
    """The probe under one tool of compute-sanitizer."""
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        return {"status": "not run", "output": "compute-sanitizer is not installed"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, str(HERE / "probe.py")]
    return run(command, budget.left(45))


def rows_of(script: str, timeout_s: float) -> dict[str, Any]:
    """A script that prints JSON lines; its lines as data."""
    step = run([sys.executable, str(HERE / script)], timeout_s)
    lines = step["output"].splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    rest = "\n".join(line for line in lines if not line.startswith("{"))
    if step["status"] == "out of time" and rows:
        step["status"] = "passed, cut off"
    return {**step, "output": rest, "rows": rows}


def main() -> int:
    """Runs all steps and writes the report."""
    budget = Budget()
    try:
        report: dict[str, Any] = {"environment": environment()}
    except (DeviceError, MissingDependencyError) as exc:
        print(f"gpu-check: nothing was run: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(report["environment"], indent=1), flush=True)
    tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    steps = {"tests": lambda: run([*tests, *TESTED], budget.left(120))}
    steps["pipeline"] = lambda: rows_of("pipeline.py", budget.left(150))
    steps |= {tool: (lambda tool=tool: sanitize(tool, budget)) for tool in SANITIZERS}
    steps["crf"] = lambda: rows_of("bench.py", budget.left(100))
    for name, step in steps.items():
        result = step()
        report[name] = {**result, "output": result["output"][-4000:]}
        print(f"{name}: {result['status']} ({result.get('seconds', 0)} s)", flush=True)
        if result["status"] in ("failed", "out of time"):
            print(result["output"][-2000:], flush=True)
    # A run in which every GPU test is skipped has shown nothing.
    if re.search(r"\d+ passed", report["tests"]["output"]) is None:
        report["tests"]["status"] = "failed"
    slug = re.sub(r"[^a-z0-9]+", "_", report["environment"]["gpu"].lower()).strip("_")
    out = RESULTS / f"gpu_{slug}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {out.relative_to(ROOT)}")
    bad = [name for name in steps if report[name]["status"] in ("failed", "out of time")]
    if bad:
        print(f"gpu-check: failed: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
