"""What the GPU's check and its benchmark share: steps with a time limit each, and one JSON file of all they said.

`run.sh` sets GPU_CHECK_SECONDS, what setting up has left of the eight minutes, and, where no GPU is at hand,
GPU_CHECK_REHEARSAL: the same steps at `sized` sizes on a stand-in for the driver, whose kernels run on the CPU.
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from atrous.errors import DeviceError, MissingDependencyError
from atrous.gpu import PyCudaDevice
from atrous.gpu.compile import find_nvcc, nvcc_version

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS = 480.0
"""For setting up and all steps together."""
PACKAGES = ("atrous", "numpy", "pycuda", "tensorrt", "tensorrt-rtx-cu13", "onnxruntime", "onnxruntime-gpu", "torch")
_KEPT_OUTPUT = 4000

Step = Callable[[], dict[str, Any]]
T = TypeVar("T")


def is_rehearsal() -> bool:
    """Whether this runs on the stand-in driver, to show that the steps work: no result of it says a thing of a GPU."""
    return bool(os.environ.get("GPU_CHECK_REHEARSAL"))


def sized(full: T, *, rehearsal: T) -> T:
    """`full`, or in a rehearsal what ends soon on a CPU: sizes, counts, lists of cases."""
    return rehearsal if is_rehearsal() else full


def results_folder() -> Path:
    """Where reports go: a rehearsal's never among results."""
    return sized(HERE.parent / "results", rehearsal=ROOT / "out" / "gpu_rehearsal")


class Budget:
    """The time that is left of `seconds`, or of what `run.sh` says is left."""

    def __init__(self, seconds: float | None = None) -> None:
        given = float(os.environ.get("GPU_CHECK_SECONDS", SECONDS)) if seconds is None else seconds
        self._end = time.monotonic() + given

    def left(self, at_most: float) -> float:
        """Seconds for the next step; at least one, so that what is out of time says so."""
        return max(1.0, min(at_most, self._end - time.monotonic()))


def run(command: list[str], timeout_s: float, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Runs one step and keeps what it said."""
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


def rows_of(script: str, timeout_s: float) -> dict[str, Any]:
    """A script of this folder that prints JSON lines; its lines as data."""
    step = run([sys.executable, str(HERE / script)], timeout_s)
    lines = step["output"].splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    rest = "\n".join(line for line in lines if not line.startswith("{"))
    if step["status"] == "out of time" and rows:
        step["status"] = "passed, cut off"
    return {**step, "output": rest, "rows": rows}


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


def run_steps(name: str, steps: Mapping[str, Step]) -> int:
    """Runs all steps, says how each went, and writes `results_folder()`/gpu_<name of the GPU>_<name>.json.

    Returns:
        0 if no step failed or ran out of time.
    """
    try:
        report: dict[str, Any] = {"environment": environment()}
    except (DeviceError, MissingDependencyError) as exc:
        print(f"gpu-{name}: nothing was run: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(report["environment"], indent=1), flush=True)
    for step, action in steps.items():
        result = action()
        report[step] = {**result, "output": result["output"][-_KEPT_OUTPUT:]}
        print(f"{step}: {result['status']} ({result.get('seconds', 0)} s)", flush=True)
        if is_bad(result):
            print(result["output"][-_KEPT_OUTPUT // 2 :], flush=True)
    slug = re.sub(r"[^a-z0-9]+", "_", report["environment"]["gpu"].lower()).strip("_")
    out = results_folder() / f"gpu_{slug}_{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {out.relative_to(ROOT)}")
    bad = [step for step in steps if is_bad(report[step])]
    if bad:
        print(f"gpu-{name}: failed: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


def is_bad(result: Mapping[str, Any]) -> bool:
    """Whether a step shows something wrong, or nothing."""
    return result["status"] in ("failed", "out of time")
