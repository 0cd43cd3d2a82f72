"""What every benchmark does alike: describe the machine, time in turns, write JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


def summarize(samples_ms: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of milliseconds."""
    low, median, high = np.percentile(samples_ms, [25, 50, 75])
    return {"median_ms": round(float(median), 3), "iqr_ms": [round(float(low), 3), round(float(high), 3)]}


def time_in_turns(calls: Mapping[str, Callable[[], object]], *, warmup: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Run all `calls` once a round, so that whatever else the machine does hits all; `summarize` each."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warmup + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            samples[name].append((time.perf_counter() - start) * 1e3)
    return {name: summarize(times[warmup:]) for name, times in samples.items()}


def describe_machine(packages: Sequence[str]) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=RESULTS.parent, check=False
    )
    return {
        "commit": git.stdout.strip(),
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def write_report(out: Path, *, packages: Sequence[str], **content: object) -> None:
    """Write `content` as JSON with the machine and the command that made it."""
    script = Path(sys.argv[0]).name
    report = {
        "benchmark": Path(script).stem.removeprefix("bench_"),
        "command": " ".join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
        "machine": describe_machine(packages),
        **content,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
