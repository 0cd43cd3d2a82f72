"""Whether the GPU code is right, in one go: tests, mean field, determinism, pipeline, compute-sanitizer; one JSON file.

Exit code 0 only if everything passed that ran, and all but compute-sanitizer ran.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from typing import Any

from steps import HERE, Budget, is_rehearsal, rows_of, run, run_steps, together, tool

#: Where tests marked `gpu` are; other files import what need not be on such a machine.
TESTED = (
    "tests/crf",
    *(["tests/exporter/engine/test_build.py"] if find_spec("torch") else []),
    *(f"tests/gpu/test_{name}.py" for name in ("device", "kernel_binaries", "cuda_devices", "queue", "replay")),
    "tests/runtime/backends/test_onnxruntime_gpu.py",
    "tests/runtime/backends/test_tensorrt_gpu.py",
    *(
        f"tests/runtime/test_{name}.py"
        for name in ("band_frame", "channels", "frame", "pipeline", "pipeline_errors", "pipeline_threads")
    ),
)
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
CLEAN = re.compile(r"(ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards)\b")
PROBE = [sys.executable, str(HERE / "probe.py")]


def tests(budget: Budget) -> dict[str, Any]:
    """The tests that need a GPU; a run in which every one is skipped has shown nothing."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "-p", "every_kernel"]
    # Plugins that happen to be installed only add warnings, which are errors.
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path}
    result = run([*command, *TESTED], budget.left(150), environment)
    if re.search(r"\d+ passed", result["output"]) is None:
        result["status"] = "failed"
    return result


def sanitize(check: str, budget: Budget) -> dict[str, Any]:
    """The probe under one check of compute-sanitizer, which must have watched it and found nothing."""
    if is_rehearsal():
        return {"status": "not run", "output": "compute-sanitizer watches a GPU, and this is a rehearsal"}
    sanitizer = tool("compute-sanitizer")
    if sanitizer is None:
        return {"status": "not run", "output": "compute-sanitizer is not installed"}
    options = ["--tool", check, "--error-exitcode", "9", "--target-processes", "application-only"]
    result = run([sanitizer, *options, *PROBE], budget.left(100))
    # Warnings do not change the exit code, nor does every GPU that it cannot watch.
    if result["status"] == "passed" and CLEAN.search(result["output"]) is None:
        result["status"] = "failed"
    return result


def main() -> int:
    """Runs all steps and writes the report."""
    budget = Budget()
    return run_steps(
        "check",
        {
            "tests": lambda: tests(budget),
            "mean_field": lambda: rows_of("mean_field.py", budget.left(90), may_be_cut=False),
            "determinism": lambda: rows_of("determinism.py", budget.left(60), may_be_cut=False),
            "pipeline": lambda: rows_of("pipeline.py", budget.left(150)),
            "probe": lambda: run(PROBE, budget.left(60)),
            **together({check: (lambda check=check: sanitize(check, budget)) for check in SANITIZERS}),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
