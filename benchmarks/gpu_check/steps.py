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
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from atrous.errors import DeviceError, MissingDependencyError
from atrous.gpu import open_device

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS = 480.0
"""For setting up and all steps together."""
PACKAGES = (
    *(
        "atrous",
        "numpy",
        "pycuda",
        "cuda-bindings",
        "tensorrt",
        "tensorrt-rtx-cu13",
        "onnx",
        "onnxruntime",
        "onnxruntime-gpu",
        "torch",
    ),
    *("cupy-cuda13x", "scikit-learn", "pydensecrf2", "pytest"),
)
TOOLS = ("nvcc", "compute-sanitizer", "ncu")
_GPU_STATE = "name,driver_version,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit,ecc.mode.current"
_KEPT_OUTPUT = 4000

_TOOL_FOLDERS = ("usr/local/cuda/bin", "opt/nvidia/nsight-compute/*")

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
    """Runs one step and keeps what it said; what it started ends with it."""
    start = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
            status = "passed" if process.returncode == 0 else "failed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = "out of time"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return {"status": status, "seconds": round(time.monotonic() - start, 1), "output": output}


def rows_of(script: str, timeout_s: float, *, may_be_cut: bool = True) -> dict[str, Any]:
    """A script of this folder that prints JSON lines; its lines as data.

    Args:
        script: its name.
        timeout_s: after which it is ended.
        may_be_cut: whether what it printed until then is a result.
    """
    step = run([sys.executable, str(HERE / script)], timeout_s)
    lines = step["output"].splitlines()
    rows = [json.loads(line) for line in lines if _is_row(line)]
    rest = "\n".join(line for line in lines if not _is_row(line))
    if step["status"] == "out of time" and rows and may_be_cut:
        step["status"] = "passed, cut off"
    return {**step, "output": rest, "rows": rows}


def _is_row(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")


def together(steps: Mapping[str, Step]) -> dict[str, Step]:
    """Steps that do not disturb each other: all start when the first is asked for."""

    @cache
    def results() -> dict[str, dict[str, Any]]:
        with ThreadPoolExecutor(len(steps)) as pool:
            started = {name: pool.submit(step) for name, step in steps.items()}
            return {name: future.result() for name, future in started.items()}

    return {name: (lambda name=name: results()[name]) for name in steps}


def version_of(package: str) -> str:
    """Its version, or that it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def tool(name: str) -> str | None:
    """The path of a tool of the CUDA toolkit, on the search path or where its packages put it, the newest first."""
    if found := shutil.which(name):
        return found
    for folder in _TOOL_FOLDERS:
        for place in sorted(Path("/").glob(folder), reverse=True):
            if found := shutil.which(name, path=str(place)):
                return found
    return None


def _said(command: list[str]) -> str:
    """The last line that a command prints, or that it failed."""
    result = run(command, 20)
    lines = result["output"].strip().splitlines()
    return lines[-1] if result["status"] == "passed" and lines else "unknown"


def environment() -> dict[str, Any]:
    """What the results depend on.

    Raises:
        DeviceError, MissingDependencyError: there is no GPU to use.
    """
    device = open_device()
    properties = device.properties
    tools = {name: tool(name) for name in (*TOOLS, "git", "nvidia-smi")}
    state = [str(tools["nvidia-smi"]), f"--query-gpu={_GPU_STATE}", "--format=csv,noheader"]
    return {
        "is_rehearsal": is_rehearsal(),
        "gpu": properties.name,
        "compute_capability": ".".join(map(str, properties.compute_capability)),
        "multiprocessors": properties.multiprocessors,
        "memory_bytes": properties.total_bytes,
        "free_bytes": device.free_bytes(),
        "driver_cuda": ".".join(map(str, properties.cuda)),
        "nvidia_smi": {_GPU_STATE: _said(state)} if tools["nvidia-smi"] else "not installed",
        "tools": {name: _said([path, "--version"]) if (path := tools[name]) else "not installed" for name in TOOLS},
        "machine": {"system": platform.platform(), "cpu": _cpu(), "cores": len(os.sched_getaffinity(0))},
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in PACKAGES},
        "commit": _said(["git", "describe", "--always", "--dirty"]) if tools["git"] else "unknown",
    }


def _cpu() -> str:
    """The processor's name where Linux tells it."""
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return names[0] if names else platform.machine()


def run_steps(name: str, steps: Mapping[str, Step]) -> int:
    """Runs all steps, says how each went, and writes `results_folder()`/gpu_<name of the GPU>_<name>.json.

    The file is written after each step: what was found is not lost if the next one hangs.

    Returns:
        0 if no step failed or ran out of time.
    """
    start = time.monotonic()
    try:
        report: dict[str, Any] = {"environment": environment(), "seconds": 0.0, "steps": {}}
    except (DeviceError, MissingDependencyError) as exc:
        print(f"gpu-{name}: nothing was run: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(report["environment"], indent=1), flush=True)
    slug = re.sub(r"[^a-z0-9]+", "_", report["environment"]["gpu"].lower()).strip("_")
    out = results_folder() / f"gpu_{slug}_{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    for step, action in steps.items():
        result = action()
        report["steps"][step] = {**result, "output": result["output"][-_KEPT_OUTPUT:]}
        print(f"{step}: {result['status']} ({result.get('seconds', 0)} s)", flush=True)
        if is_bad(result):
            print(result["output"][-_KEPT_OUTPUT // 2 :], flush=True)
        report["seconds"] = round(time.monotonic() - start, 1)
        text = json.dumps(report, indent=1).replace(f"{ROOT}/", "")  # paths are this machine's
        out.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {out.relative_to(ROOT)}")
    if is_rehearsal():
        print(f"gpu-{name}: this was a REHEARSAL on the CPU: it says whether the steps work, and nothing of a GPU")
    bad = [step for step in steps if is_bad(report["steps"][step])]
    if bad:
        print(f"gpu-{name}: failed: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


def is_bad(result: Mapping[str, Any]) -> bool:
    """Whether a step shows something wrong, or nothing."""
    return result["status"] in ("failed", "out of time")
