"""How fast the GPU code is, in one go; one JSON file. Run `check.py` first: a wrong result is not timed anyway."""

from __future__ import annotations

import sys

from steps import Budget, rows_of, run_steps

BUDGET_S = 380.0


def main() -> int:
    """Runs all steps and writes the report."""
    budget = Budget(BUDGET_S)
    return run_steps("bench", {"crf": lambda: rows_of("crf.py", budget.left(100))})


if __name__ == "__main__":
    sys.exit(main())
