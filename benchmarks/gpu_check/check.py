"""Whether the GPU code is right, in one go: tests, pipeline, compute-sanitizer; one JSON file.

Exit code 0 only if everything that ran passed, and the tests and the pipeline ran.
"""

from __future__ import annotations

import re
import shutil
import sys
from typing import Any

from steps import HERE, Budget, rows_of, run, run_steps

BUDGET_S = 380.0
TESTED = (
    "tests/gpu",
    "tests/crf",
    "tests/runtime/test_frame.py",
    "tests/runtime/test_pipeline.py",
    "tests/runtime/backends/test_tensorrt_gpu.py",
)
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")


def tests(budget: Budget) -> dict[str, Any]:
    """The tests that need a GPU; a run in which every one is skipped has shown nothing."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *TESTED]
    result = run(command, budget.left(120))
    if re.search(r"\d+ passed", result["output"]) is None:
        result["status"] = "failed"
    return result


def sanitize(tool: str, budget: Budget) -> dict[str, Any]:
    """The probe under one tool of compute-sanitizer."""
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        return {"status": "not run", "output": "compute-sanitizer is not installed"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, str(HERE / "probe.py")]
    return run(command, budget.left(45))


def main() -> int:
    """Runs all steps and writes the report."""
    budget = Budget(BUDGET_S)
    return run_steps(
        "check",
        {
            "tests": lambda: tests(budget),
            "pipeline": lambda: rows_of("pipeline.py", budget.left(150)),
            **{tool: (lambda tool=tool: sanitize(tool, budget)) for tool in SANITIZERS},
        },
    )


if __name__ == "__main__":
    sys.exit(main())
